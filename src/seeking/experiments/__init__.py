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
        "seeking.experiments.compare": "ARMS",
        "seeking.experiments.config": "RunConfig",
        "seeking.experiments.run": "models trainer",
    },
)
