"""Runs from a configuration, alone and side by side."""

from typing import TYPE_CHECKING

from seeking.lazy import lazy

if TYPE_CHECKING:
    from seeking.experiments.compare import ARMS
    from seeking.experiments.config import RunConfig
    from seeking.experiments.run import models, trainer

__all__ = ["ARMS", "RunConfig", "models", "trainer"]

__getattr__ = lazy(
    __name__,
    {
        "ARMS": "seeking.experiments.compare:ARMS",
        "RunConfig": "seeking.experiments.config:RunConfig",
        "models": "seeking.experiments.run:models",
        "trainer": "seeking.experiments.run:trainer",
    },
)
