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
        "Cost": "seeking.training.cost:Cost",
        "Result": "seeking.training.result:Result",
        "RunFolder": "seeking.checkpointing.run_dir:RunFolder",
        "TrainConfig": "seeking.training.config:TrainConfig",
        "Trainer": "seeking.training.trainer:Trainer",
        "count_flops": "seeking.training.cost:count_flops",
        "recalibrate": "seeking.training.recalibration:recalibrate",
    },
)
