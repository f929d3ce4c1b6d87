"""Motivated training for PyTorch: one training run, two models.

pair = seeking.Pair(base, motivated)
condition = seeking.ConsecutiveDecrease(2)

for x, y in loader:
    loss = train_step(pair.base, x, y)
    if condition.update(loss):
        with pair.motivated() as model:
            train_step(model, x, y)
"""

from seeking.lazy import lazy

TYPE_CHECKING = False  # As that of typing, whose import would delay what handles signals.
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
    from seeking.errors import MatchWarning, NotContainedError, RunError, SeekingError
    from seeking.initialization import embed, extract
    from seeking.matching import Override, match
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

__getattr__ = lazy(
    __name__,
    {
        "seeking.conditions": "After Always Condition ConsecutiveDecrease Every MatchedCount Never Outcome "
        "RandomTimes Signals",
        "seeking.distributed.mean_loss": "mean_loss",
        "seeking.errors": "MatchWarning NotContainedError RunError SeekingError",
        "seeking.initialization": "embed extract",
        "seeking.matching": "Override match",
        "seeking.pair": "Pair",
        "seeking.training": "Result TrainConfig Trainer recalibrate",
        "seeking.verification": "Verification verify",
        "seeking.weights_map": "Entry Index WeightsMap",
    },
    parse_condition="seeking.conditions:parse",
)


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})  # Shells complete these names before their first use as well.
