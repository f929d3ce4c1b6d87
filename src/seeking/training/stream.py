"""Training data without a length, such as streams: what they need, and where a run is in them."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator

from seeking.errors import SeekingError
from seeking.training.config import TrainConfig
from seeking.training.loaders import Dispatched, Loader
from seeking.training.progress import Progress
from seeking.training.rng import RandomState


def check_stream(config: TrainConfig) -> None:
    """Check that options do not need the length of an epoch.

    Raises:
        SeekingError: one does.
    """
    reason = ""
    if config.max_steps is None:
        reason = "which schedules need to count the run's batches; give max_steps, the number of steps of the run"
    elif config.warmup_epochs:
        reason = f"so warmup_epochs {config.warmup_epochs} cannot be counted; give warmup_steps"
    elif config.norm == "recalibrated":
        reason = "so norm recalibrated would read it out of turn; use norm private"
    if reason:
        raise SeekingError(f"train_loader has no length, {reason}, or give it a __len__")


class StreamPosition:
    """Where a run is within a pass over a loader that keeps its position, as torchdata's ``StatefulDataLoader`` does.

    Args:
        loader: whose loader has ``state_dict`` and ``load_state_dict``.
        progress: of the run.
        reads: whether this process reads the loader.
    """

    def __init__(self, loader: Loader, progress: Progress, reads: bool) -> None:
        self._loader, self._progress, self._reads = loader, progress, reads

    def state_dict(self) -> dict[str, Any]:
        """The state of the loader; None between two passes, of which each starts anew."""
        if not self._reads or not self._progress.step_in_epoch:
            return {"loader": None}
        with RandomState(torch.device("cpu")).preserved():
            return {"loader": self._loader.base_dataloader.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass go on from there."""
        if state["loader"] is None:
            return
        if self._reads:
            self._loader.base_dataloader.load_state_dict(state["loader"])
        self._loader.positioned = True


def position_of(loader: Loader, progress: Progress, accelerator: Accelerator) -> StreamPosition | None:
    """The position in a loader without a length that keeps it itself; None if batches are skipped on resuming.

    What each process reads for itself is not known to the others.
    """
    keeps = all(hasattr(loader.base_dataloader, name) for name in ("state_dict", "load_state_dict"))
    alone = accelerator.num_processes == 1
    if progress.epoch_length is not None or not keeps or not (alone or isinstance(loader, Dispatched)):
        return None
    return StreamPosition(loader, progress, reads=accelerator.is_main_process)
