"""Conditions that depend only on the index of the batch."""

from typing import ClassVar

from seeking.conditions.base import Condition, Signals, whole_number
from seeking.conditions.registry import register
from seeking.errors import SeekingError


class Counting(Condition):
    """A condition that counts the batches it has seen."""

    state_names: ClassVar[tuple[str, ...]] = ("seen",)

    def __init__(self) -> None:
        self.seen = 0

    def decide(self, signals: Signals) -> bool:
        decision = self.decide_at(self.seen, signals)
        self.seen += 1
        return decision

    def decide_at(self, batch: int, signals: Signals) -> bool:
        """Whether to be motivated on the batch with this index, counted from 0.

        Raises:
            NotImplementedError: a subclass has not defined it.
        """
        raise NotImplementedError


class Schedule(Counting):
    """A condition that depends on the number of the batch alone."""

    is_schedule = True


@register("always")
class Always(Condition):
    """Holds on every batch ("always")."""

    is_schedule = True

    def __str__(self) -> str:
        return "always"

    def decide(self, signals: Signals) -> bool:
        return True


@register("never")
class Never(Condition):
    """Holds on no batch: ordinary training of the base ("never")."""

    is_schedule = True

    def __str__(self) -> str:
        return "never"

    def decide(self, signals: Signals) -> bool:
        return False


@register("every")
class Every(Schedule):
    """Batches number k, 2k, 3k and so on ("every:6").

    Raises:
        ValueError: ``k`` is not positive.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = whole_number("k", k, minimum=1)

    def __str__(self) -> str:
        return f"every:{self.k}"

    def decide_at(self, batch: int, signals: Signals) -> bool:
        return (batch + 1) % self.k == 0


@register("after")
class After(Schedule):
    """Every batch after the first ``step`` batches ("after:500"), or after this share of the run ("after:0.3").

    Args:
        step: number of batches; or a share of the run's batches, above 0 and below 1.

    Raises:
        ValueError: ``step`` is negative, or neither a whole number nor a share.
    """

    def __init__(self, step: float) -> None:
        super().__init__()
        if step < 0 or (step > 1 and step != int(step)):
            raise ValueError(f"step is {step}; it is a whole number of batches, or a share of the run below 1")
        self.step = step if 0 < step < 1 else int(step)

    def __str__(self) -> str:
        return f"after:{self.step}"

    def decide_at(self, batch: int, signals: Signals) -> bool:
        return batch >= batches_of(self.step, signals)


@register("before")
class Before(After):
    """The batches that ``After`` leaves out: the first ``step`` batches ("before:500"), or share ("before:0.3").

    Raises:
        ValueError: ``step`` is negative, or neither a whole number nor a share.
    """

    def __str__(self) -> str:
        return f"before:{self.step}"

    def decide_at(self, batch: int, signals: Signals) -> bool:
        return not super().decide_at(batch, signals)


def batches_of(step: float, signals: Signals) -> int:
    """A number of batches, or a share of the run's as a number of batches.

    Raises:
        SeekingError: it is a share, and the length of the run is unknown.
    """
    if not 0 < step < 1:
        return int(step)
    if signals.steps is None:
        raise SeekingError(f"{step} is a share of the run, but the signals do not include its number of steps")
    return round(step * signals.steps)
