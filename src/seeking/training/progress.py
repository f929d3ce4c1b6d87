"""Progress of a run."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from seeking.errors import RunError, RunWarning, SeekingError


@dataclass
class Progress:
    """Counts of epochs and batches, all from 0.

    Attributes:
        epoch_length: batches in an epoch; None if that is not known: an epoch is then a pass over the data.
        epochs: number of epochs of the run.
        max_steps: batches of the run, if that is its length instead.
        epoch: index of the current epoch.
        step: batches so far in the run.
        step_in_epoch: batches so far in this epoch.
        first_step: batch on which a model took the first step of the run; None before.
    """

    epoch_length: int | None
    epochs: int
    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    max_steps: int | None = None
    first_step: int | None = None

    @property
    def steps(self) -> int:
        """Batches of the whole run."""
        if self.max_steps is not None:
            return self.max_steps
        assert self.epoch_length is not None  # Data without a length are refused without max_steps.
        return self.epochs * self.epoch_length

    @property
    def done(self) -> bool:
        """Whether the run is at its end."""
        return self.epoch >= self.epochs if self.max_steps is None else self.step >= self.max_steps

    @property
    def in_last_epoch(self) -> bool:
        """Whether the run ends when this epoch does."""
        return self.epoch + 1 >= self.epochs if self.max_steps is None else self.done

    @property
    def epoch_complete(self) -> bool:
        """Whether the epoch has all batches that it may have; of a length that is not known, the loader decides."""
        return self.epoch_length is not None and self.step_in_epoch >= self.epoch_length

    def plan(self) -> dict[str, Any]:
        """The length of the run, as the record of the run has it."""
        epochs: int | None = self.epochs
        if self.max_steps is not None:
            epochs = None if self.epoch_length is None else math.ceil(self.max_steps / self.epoch_length)
        return {"kind": "start", "epochs": epochs, "epoch_length": self.epoch_length, "steps": self.steps}

    def late_warmup(self, length: int) -> float:
        """Factor of the schedule's learning rate on this batch, with which its warm-up begins with the first step.

        Args:
            length: batches in which the schedule warms up, from the first batch on.
        """
        if self.first_step is None or not length:
            return 1.0
        late, scheduled = (
            min(1.0, 1 / length + (1 - 1 / length) * steps / length)
            for steps in (self.step - self.first_step, self.step)
        )
        return late / scheduled

    def end_batch(self) -> None:
        """Count a batch."""
        self.step += 1
        self.step_in_epoch += 1

    def end_epoch(self) -> None:
        """Count an epoch, unless the end of the run has cut it short.

        Warns if the epoch was shorter than the length of its loader.

        Raises:
            RunError: a loader without a length has given no batch.
        """
        if self.max_steps is not None and self.done and not self.epoch_complete:
            return
        if self.epoch_length is None and not self.step_in_epoch:
            raise RunError(
                f"pass {self.epoch + 1} over the training data gave no batch at step {self.step} of {self.steps}; data "
                "without a length must start anew for each pass, or have enough batches for the run"
            )
        if self.epoch_length is not None and self.step_in_epoch < self.epoch_length:
            warnings.warn(
                f"epoch {self.epoch + 1} had {self.step_in_epoch} steps, but the length of the loader is "
                f"{self.epoch_length}; schedules and conditions count on that length",
                RunWarning,
                stacklevel=3,
            )
        self.epoch += 1
        self.step_in_epoch = 0

    def state_dict(self) -> dict[str, int | None]:
        """The counts and the length of an epoch."""
        state = asdict(self)
        del state["epochs"], state["max_steps"]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from these counts. Warns if the run has more steps than it is to have.

        Raises:
            SeekingError: the length of an epoch has changed.
            ValueError: the counts contradict each other.
        """
        length, epoch, step, step_in_epoch = (
            state[name] for name in ("epoch_length", "epoch", "step", "step_in_epoch")
        )
        if length != self.epoch_length:
            raise SeekingError(
                f"an epoch had {_count(length)} batches and has {_count(self.epoch_length)} now; the data or the batch "
                "size has changed"
            )
        known = () if length is None else (length,)
        counts_fit = all(type(count) is int and count >= 0 for count in (*known, epoch, step, step_in_epoch))
        # An epoch may have fewer batches than the length of its loader.
        if not counts_fit or any(step_in_epoch > most or step > epoch * most + step_in_epoch for most in known):
            raise ValueError(f"step {step} cannot be batch {step_in_epoch} of epoch {epoch}")
        if step > self.max_steps if self.max_steps is not None else (epoch, step_in_epoch) > (self.epochs, 0):
            asked = f"epochs is {self.epochs}" if self.max_steps is None else f"max_steps is {self.max_steps}"
            warnings.warn(
                f"{asked}, and the run has {step} steps in {epoch} whole epochs already; it ends here, and its results "
                "are those of all its steps",
                RunWarning,
                stacklevel=2,
            )
        self.epoch, self.step, self.step_in_epoch = epoch, step, step_in_epoch
        self.first_step = state.get("first_step", 0)  # Earlier runs warmed up by the schedule alone.


def _count(length: int | None) -> str:
    return "an unknown number of" if length is None else str(length)
