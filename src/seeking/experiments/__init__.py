"""Runs from a configuration, alone and side by side."""

from seeking.experiments.compare import ARMS, compare
from seeking.experiments.run import RunConfig, models, trainer

__all__ = ["ARMS", "RunConfig", "compare", "models", "trainer"]
