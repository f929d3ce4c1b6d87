"""Training: the motivated loop and all that surrounds it."""

from seeking.training.config import TrainConfig
from seeking.training.cost import Cost, count_flops
from seeking.training.folder import RunFolder
from seeking.training.recalibrate import recalibrate
from seeking.training.trainer import Result, Trainer

__all__ = ["Cost", "Result", "RunFolder", "TrainConfig", "Trainer", "count_flops", "recalibrate"]
