"""Training data without a length, such as streams: what they need, and where a run is in them."""

from collections.abc import Iterable, Mapping
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import IterableDataset

from seeking.checkpointing.serialize import pack
from seeking.errors import SeekingError
from seeking.internals import forget_position, has_shuffle_buffer, iterates_by_torch
from seeking.training.config import TrainConfig
from seeking.training.loaders import Dispatched, Loader, components
from seeking.training.progress import Progress


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
    """Where a run is within a pass over a stream, as the stream itself or its loader keeps it.

    Without such a keeper there is no position, and batches are skipped when a run is resumed.

    Args:
        loader: of the stream.
        progress: of the run.
        accelerator: that knows the processes.
        keeper: with ``state_dict`` and ``load_state_dict``; None if nothing keeps the position.
    """

    def __init__(self, loader: Loader, progress: Progress, accelerator: Accelerator, keeper: Any) -> None:
        self._loader, self._progress, self._keeper = loader, progress, keeper
        # What is dispatched is read in one process; else each reads its own part.
        read_once = isinstance(loader, Dispatched) or accelerator.num_processes == 1
        self._reader = 0 if read_once else accelerator.process_index
        self._reads = accelerator.process_index == self._reader
        self._kind = {
            "keeper": None if keeper is None else "loader" if keeper is loader.base_dataloader else "dataset",
            "readers": 1 if read_once else accelerator.num_processes,
        }
        self._begun = False
        self._at: Any = None
        self._marked: tuple[tuple[int, int], Any] = (-1, 0), None

    def begin(self) -> None:
        """Before a pass, or the rest of one: in a pass that was interrupted in this process, go on where it was."""
        if self._progress.step_in_epoch and not self._loader.positioned:
            self._go_to(self._position())
        self._marked = self._batch, self._at if self._loader.positioned else None

    def begun(self) -> None:
        """After its first batch. The data forget where they were to begin, since they may be gone through again."""
        self._begun = True
        for part in components(self._loader):
            forget_position(part)

    def mark(self) -> None:
        """Note the position before the next batch is loaded: if no model steps on it, the run is still there."""
        self._marked = self._batch, self._current()

    def state_dict(self) -> dict[str, Any]:
        """The position of each process; None between two passes, of which each starts anew."""
        position = self._position()
        try:
            pack(position)
        except SeekingError:  # A checkpoint cannot hold it.
            position = None
        return {**self._kind, "places": gather_object([position])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass go on from there, if this keeper can."""
        if all(state[name] == value for name, value in self._kind.items()):
            self._go_to(state["places"][self._reader])

    def _position(self) -> Any:
        batch, position = self._marked
        return position if batch == self._batch else self._current() if self._begun else None

    @property
    def _batch(self) -> tuple[int, int]:
        return self._progress.step, self._progress.step_in_epoch

    def _current(self) -> Any:
        if self._keeper is None or not self._reads or not self._progress.step_in_epoch:
            return None
        return self._keeper.state_dict()

    def _go_to(self, position: Any) -> None:
        self._at = position
        if self._reads and position is not None:
            self._keeper.load_state_dict(position)
        self._loader.positioned = position is not None


def position_of(
    loader: Loader, progress: Progress, accelerator: Accelerator, others: Iterable[Any]
) -> StreamPosition | None:
    """The position in a loader without a length; None for others, of which batches are skipped by their indices.

    Args:
        loader: of the training data.
        progress: of the run.
        accelerator: that knows the processes.
        others: loaders of other data of the run. Reading them would change the position in data that they share.
    """
    if progress.epoch_length is not None:
        return None
    elsewhere = {id(part) for other in others if other is not None for part in components(other)}
    shared = any(id(part) in elsewhere for part in components(loader)[1:])
    return StreamPosition(loader, progress, accelerator, None if shared else _keeper(loader.base_dataloader))


def _keeper(loader: Any) -> Any:
    """What keeps the position: the loader, or else an iterable data set that it reads in this process."""
    parts = components(loader)
    if any(has_shuffle_buffer(part) for part in parts):  # Its samples would be lost.
        return None
    dataset = getattr(loader, "dataset", None)
    stream = isinstance(dataset, IterableDataset)
    if _keeps(loader):
        # Of a stream that cannot tell its position, torchdata's loader skips batches as well, and miscounts them.
        return None if stream and not _keeps(dataset) else loader
    here = stream and iterates_by_torch(loader) and not loader.num_workers
    return dataset if here and _keeps(dataset) else None


def _keeps(part: Any) -> bool:
    return all(hasattr(part, name) for name in ("state_dict", "load_state_dict"))
