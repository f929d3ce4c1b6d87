"""When a run is saved, and how: taken into memory at once, written in the background."""

import functools
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from seeking.errors import RunError, RunWarning
from seeking.training import checkpoint
from seeking.training.config import TrainConfig
from seeking.training.folder import RunFolder
from seeking.training.state import pack
from seeking.weights_files import write_tensors


class Saver:
    """Writes the checkpoints and the weights of a run, as often as its options say.

    Args:
        folder: of the run.
        config: the run's options.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig) -> None:
        self.folder = folder
        self.keep = config.keep_checkpoints
        self._steps, self._seconds = config.save_interval()
        self._writer = checkpoint.Writer()
        self.saved_step = -1
        self._owed: dict[str, Callable[[], None]] = {}
        """Files of weights that are to be written, or could not be yet. No checkpoint is written before they are: a run
        resumed from it would take them for written."""
        self._saved_at = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether the run is to be saved at this step; not while the last saving is still being written."""
        if self._writer.busy:
            return False
        if self._steps:
            return step % self._steps == 0 or step - self.saved_step >= self._steps
        return self._seconds is not None and time.monotonic() - self._saved_at >= self._seconds

    def save(self, step: int, state: Mapping[str, Any], weights: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
        """Take a state into memory and write it in the background.

        Args:
            step: steps taken so far.
            state: of the run, with each model's tensors under ``models``.
            weights: files of weights to write, too: by the file's name the model, and what the file says of itself.

        Raises:
            SeekingError: the state holds something that cannot be saved.
        """
        packed, tensors = pack(state)
        try:
            self.wait()
        except RunError as error:
            warnings.warn(f"{error}; training goes on", RunWarning, stacklevel=2)
        copies = self._writer.copied(tensors)
        jobs: list[Callable[[], None]] = []
        for name, (model, about) in weights.items():
            content = _weights(packed["models"][model], copies)
            self._owed[name] = functools.partial(write_tensors, content, self.folder.path / name, about)
        jobs += [functools.partial(self._pay, name) for name in self._owed]
        jobs.append(self.folder.flush_metrics)
        if step != self.saved_step and not (self.folder.checkpoints / checkpoint.name(step)).exists():
            jobs.append(functools.partial(checkpoint.write, self.folder.checkpoints, step, packed, copies))
            jobs.append(functools.partial(checkpoint.tidy, self.folder.checkpoints, self.keep))
        self.saved_step, self._saved_at = step, time.monotonic()
        self._writer.start(jobs)

    def _pay(self, name: str) -> None:
        self._owed[name]()
        del self._owed[name]

    def wait(self) -> None:
        """Wait for what is being written.

        Raises:
            RunError: it could not be written.
        """
        try:
            self._writer.wait()
        except (OSError, SafetensorError, RunError) as error:
            step, self.saved_step = self.saved_step, -1
            there = checkpoint.found(self.folder.checkpoints)
            newest = f"the newest checkpoint is {there[0].name}" if there else "there is no checkpoint yet"
            raise RunError(f"{self.folder.path}: step {step} could not be saved ({error}); {newest}") from error


def _weights(model: Mapping[str, Any], copies: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that a file of a model's weights holds; of those that are one, the first name."""
    content: dict[str, Tensor] = {}
    for name in model["persistent"]:
        tensor = copies[model["tensors"][name]["$tensor"]]
        if not any(tensor is other for other in content.values()):
            content[name] = tensor
    return content
