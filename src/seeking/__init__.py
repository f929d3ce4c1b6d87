"""Motivated training for PyTorch: one training run, two models.

pair = seeking.Pair(base, motivated)
condition = seeking.ConsecutiveDecrease(2)

for x, y in loader:
    loss = train_step(pair.base, x, y)
    if condition.update(loss):
        with pair.motivated() as model:
            train_step(model, x, y)
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from seeking.training import Result, TrainConfig, Trainer, recalibrate
    from seeking.verification import Verification, verify
    from seeking.weights_map import Entry, Index, WeightsMap

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


_MODULES = {
    "conditions": "After Always Condition ConsecutiveDecrease Every MatchedCount Never Outcome RandomTimes Signals",
    "distributed.mean_loss": "mean_loss",
    "errors": "NotContainedError RunError SeekingError",
    "initialization": "embed extract",
    "matching": "MatchWarning Override match",
    "pair": "Pair",
    "training": "Result TrainConfig Trainer recalibrate",
    "verification": "Verification verify",
    "weights_map": "Entry Index WeightsMap",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    # Imported when asked for: a plain loop does not need the trainer, and the command catches Ctrl-C before PyTorch.
    if name == "parse_condition":
        return importlib.import_module("seeking.conditions").parse
    if name in _HOMES:
        return getattr(importlib.import_module(f"seeking.{_HOMES[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"seeking.{name}"):
        return importlib.import_module(f"seeking.{name}")
    raise AttributeError(f"module 'seeking' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
