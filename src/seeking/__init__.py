"""Motivated training for PyTorch: one training run, two models.

pair = seeking.Pair(base, motivated)
condition = seeking.ConsecutiveDecrease(2)

for x, y in loader:
    loss = train_step(pair.base, x, y)
    if condition.update(loss):
        with pair.motivated() as model:
            train_step(model, x, y)
"""

from typing import TYPE_CHECKING

from seeking.conditions import (
    After,
    Always,
    Condition,
    ConsecutiveDecrease,
    Every,
    MatchedCount,
    Never,
    Outcome,
    RandomTimes,
    Signals,
)
from seeking.conditions import parse as parse_condition
from seeking.distributed.mean_loss import mean_loss
from seeking.errors import NotContainedError, RunError, SeekingError
from seeking.initialization import embed, extract
from seeking.matching import MatchWarning, Override, match
from seeking.pair import Pair
from seeking.verification import Verification, verify
from seeking.weights_map import Entry, Index, WeightsMap

if TYPE_CHECKING:
    from seeking.training import Result, TrainConfig, Trainer, recalibrate

__all__ = [
    "After",
    "Always",
    "Condition",
    "ConsecutiveDecrease",
    "Entry",
    "Every",
    "Index",
    "MatchWarning",
    "MatchedCount",
    "Never",
    "NotContainedError",
    "Outcome",
    "Override",
    "Pair",
    "RandomTimes",
    "Result",
    "RunError",
    "SeekingError",
    "Signals",
    "TrainConfig",
    "Trainer",
    "Verification",
    "WeightsMap",
    "embed",
    "extract",
    "match",
    "mean_loss",
    "parse_condition",
    "recalibrate",
    "verify",
]


def __getattr__(name: str) -> object:
    # The trainer brings accelerate and more with it: only for those who ask for it.
    if name in ("Result", "TrainConfig", "Trainer", "recalibrate"):
        import seeking.training

        return getattr(seeking.training, name)
    raise AttributeError(f"module 'seeking' has no attribute {name!r}")
