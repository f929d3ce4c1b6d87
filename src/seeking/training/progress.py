"""Progress of a run."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from seeking.errors import RunWarning, SeekingError


@dataclass
class Progress:
    """Counts of epochs and batches, all from 0.

    Attributes:
        epoch_length: batches in an epoch.
        epochs: number of epochs of the run.
        epoch: index of the current epoch.
        step: batches so far in the run.
        step_in_epoch: batches so far in this epoch.
    """

    epoch_length: int
    epochs: int
    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0

    @property
    def steps(self) -> int:
        """Batches of the whole run."""
        return self.epochs * self.epoch_length

    def end_batch(self) -> None:
        """Count a batch."""
        self.step += 1
        self.step_in_epoch += 1

    def end_epoch(self) -> None:
        """Count an epoch; warn if it was shorter than the length of its loader."""
        if self.step_in_epoch < self.epoch_length:
            warnings.warn(
                f"epoch {self.epoch + 1} had {self.step_in_epoch} steps, but the length of the loader is "
                f"{self.epoch_length}; schedules and conditions count on that length",
                RunWarning,
                stacklevel=3,
            )
        self.epoch += 1
        self.step_in_epoch = 0

    def state_dict(self) -> dict[str, int]:
        """The counts and the length of an epoch."""
        state = asdict(self)
        del state["epochs"]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from these counts.

        Raises:
            SeekingError: the length of an epoch has changed.
            ValueError: the counts contradict each other.
        """
        length, epoch, step, step_in_epoch = (
            state[name] for name in ("epoch_length", "epoch", "step", "step_in_epoch")
        )
        if length != self.epoch_length:
            raise SeekingError(
                f"an epoch had {length} batches and has {self.epoch_length} now; the data or the batch size has changed"
            )
        counts_fit = all(type(count) is int and count >= 0 for count in (length, epoch, step, step_in_epoch))
        # An epoch may have fewer batches than the length of its loader.
        if not counts_fit or step_in_epoch > length or step > epoch * length + step_in_epoch:
            raise ValueError(f"step {step} cannot be batch {step_in_epoch} of epoch {epoch}")
        self.epoch, self.step, self.step_in_epoch = epoch, step, step_in_epoch
