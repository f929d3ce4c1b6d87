"""The ``Trainer`` and its parts."""

from typing import TYPE_CHECKING

from seeking.lazy import lazy

if TYPE_CHECKING:
    from seeking.checkpointing.run_dir import RunFolder
    from seeking.training.config import TrainConfig
    from seeking.training.cost import Cost, count_flops
    from seeking.training.recalibration import recalibrate
    from seeking.training.result import Result
    from seeking.training.trainer import Trainer

__all__ = ["Cost", "Result", "RunFolder", "TrainConfig", "Trainer", "count_flops", "recalibrate"]

__getattr__ = lazy(
    __name__,
    {
        "seeking.checkpointing.run_dir": "RunFolder",
        "seeking.training.config": "TrainConfig",
        "seeking.training.cost": "Cost count_flops",
        "seeking.training.recalibration": "recalibrate",
        "seeking.training.result": "Result",
        "seeking.training.trainer": "Trainer",
    },
)
