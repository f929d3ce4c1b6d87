"""When a run is saved, and how: copied to memory at once, written in the background."""

import contextlib
import functools
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from seeking.checkpointing.foreign_weights import EXTRA_STATE
from seeking.checkpointing.run_dir import RunFolder
from seeking.checkpointing.serialize import pack
from seeking.errors import RunError, RunWarning, SeekingError
from seeking.files import reason


class BackgroundWriter:
    """Copies tensors to memory of its own and does one group of jobs at a time in a thread.

    The thread has the priority of training. With a lower one it would wait for a core while it holds the interpreter's
    lock, for which training then waits as well.
    """

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether the last jobs are still being done."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the last jobs.

        Raises:
            OSError, SafetensorError: one of them failed.
        """
        if self._thread:
            self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error:
            self._copies = {}  # What could not be written may be tried again.
            raise error

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Contiguous copies on the CPU, in memory that the next copies reuse; the last jobs must be done."""
        copies = {}
        for name, tensor in tensors.items():
            copy = self._copies.get(name)
            if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
                copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
            copies[name] = copy.copy_(tensor, non_blocking=True)
        if any(tensor.device.type != "cpu" for tensor in tensors.values()):
            torch.accelerator.synchronize()
        self._copies = copies
        return copies

    def start(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Do these jobs in turn, in the background."""

        def work() -> None:
            try:
                for job in jobs:
                    job()
            except BaseException as error:
                self._error = error

        # A daemon, so that a program that must leave at once can; what is half written is not a checkpoint.
        self._thread = threading.Thread(target=work, name="seeking-writer", daemon=True)
        self._thread.start()


class CheckpointWriter:
    """Writes the checkpoints and the weights of a run.

    Args:
        folder: of the run.
        every_steps: save whenever the step is a multiple of this.
        every_seconds: save after so much time, if ``every_steps`` is None.
        keep: how many checkpoints are kept.
    """

    def __init__(
        self, folder: RunFolder, every_steps: int | None, every_seconds: float | None, keep: int | None
    ) -> None:
        self.folder = folder
        self.saved_step = -1
        self._every_steps, self._every_seconds, self._keep = every_steps, every_seconds, keep
        self._writer = BackgroundWriter()
        self._pending: dict[str, Callable[[], None]] = {}
        """Files of weights that are to be written, or could not be yet. No checkpoint is written before they are: a run
        resumed from it would take them for written."""
        self._saved_at = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether the run is to be saved at this step; not while the last save is still being written."""
        if self._writer.busy:
            return False
        if self._every_steps:
            return step % self._every_steps == 0 or step - self.saved_step >= self._every_steps
        return self._every_seconds is not None and time.monotonic() - self._saved_at >= self._every_seconds

    def save(self, step: int, state: Mapping[str, Any], weights: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
        """Copy a state to memory and write it in the background.

        Args:
            step: steps taken so far.
            state: of the run; parts of models have their tensors under ``model``.
            weights: files of weights to write as well: by file name, the part with the model and the file's metadata.

        Raises:
            SeekingError: the state holds something that cannot be saved.
        """
        packed, tensors = pack(state)
        try:
            self.wait()
        except RunError as error:
            warnings.warn(f"{error}; training continues", RunWarning, stacklevel=2)
        copies = self._writer.copy(tensors)
        for file, (part, metadata) in weights.items():
            content, extra = _model_weights(packed["parts"][part]["model"], copies)
            about = {**metadata, EXTRA_STATE: extra} if extra else metadata
            self._pending[file] = functools.partial(self.folder.write_weights, file, content, about)
        jobs: list[Callable[[], None]] = [functools.partial(self._write_weights, file) for file in self._pending]
        jobs.append(self.folder.metrics.sync)
        if step != self.saved_step:
            jobs.append(functools.partial(self.folder.write_checkpoint, step, packed, copies, self._keep))
        self.saved_step, self._saved_at = step, time.monotonic()
        self._writer.start(jobs)

    def _write_weights(self, file: str) -> None:
        self._pending[file]()
        del self._pending[file]

    def wait(self) -> None:
        """Wait for what is being written.

        Raises:
            RunError: it could not be written.
        """
        try:
            self._writer.wait()
        except (OSError, SafetensorError, RunError) as error:
            step, self.saved_step, checkpoints = self.saved_step, -1, []
            with contextlib.suppress(SeekingError):
                checkpoints = self.folder.list_checkpoints()
            newest = f"the newest checkpoint is {checkpoints[0].name}" if checkpoints else "there is no checkpoint yet"
            raise RunError(f"{self.folder.path}: step {step} could not be saved ({reason(error)}); {newest}") from error


def _model_weights(model: Mapping[str, Any], copies: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a model's weights file, of those that are tied the first name; and extra states of modules.

    Extra states that JSON does not hold as they are, such as mappings of tensors, are in the checkpoint alone.
    """
    content: dict[str, Tensor] = {}
    own, extra = {name: model["tensors"][name] for name in model["persistent"]}, model["extra"]
    for name, state in {**own, **extra}.items():
        if isinstance(state, dict) and "$tensor" in state:
            tensor = copies[state["$tensor"]]
            if not any(tensor is other for other in content.values()):
                content[name] = tensor
    return content, {name: state for name, state in extra.items() if not _has_tags(state)}


def _has_tags(state: Any) -> bool:
    """Whether a packed state stands for something that JSON does not hold."""
    if isinstance(state, dict):
        tagged = len(state) == 1 and next(iter(state)).startswith("$")
        return tagged or any(map(_has_tags, state.values()))
    return isinstance(state, list) and any(map(_has_tags, state))
