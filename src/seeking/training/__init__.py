"""The ``Trainer`` and its parts."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeking.checkpointing.run_dir import RunFolder
    from seeking.training.config import TrainConfig
    from seeking.training.cost import Cost, count_flops
    from seeking.training.recalibration import recalibrate
    from seeking.training.result import Result
    from seeking.training.trainer import Trainer

__all__ = ["Cost", "Result", "RunFolder", "TrainConfig", "Trainer", "count_flops", "recalibrate"]

_MODULES = {
    "Cost": "seeking.training.cost",
    "Result": "seeking.training.result",
    "RunFolder": "seeking.checkpointing.run_dir",
    "TrainConfig": "seeking.training.config",
    "Trainer": "seeking.training.trainer",
    "count_flops": "seeking.training.cost",
    "recalibrate": "seeking.training.recalibration",
}


def __getattr__(name: str) -> object:
    # Imported on first use: the trainer imports the algorithms, which import parts of this package.
    if name in _MODULES:
        import importlib

        value: object = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'seeking.training' has no attribute {name!r}")
