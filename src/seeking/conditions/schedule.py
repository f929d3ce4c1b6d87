"""Conditions that depend only on the index of the batch."""

from seeking.conditions.base import Condition, Signals, State, whole_number
from seeking.conditions.registry import register


class Counting(Condition):
    """A condition that counts the batches it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def decide(self, signals: Signals) -> bool:
        decision = self.decide_at(self.seen, signals)
        self.seen += 1
        return decision

    def decide_at(self, batch: int, signals: Signals) -> bool:
        """Whether to be motivated on the batch with this index, counted from 0."""
        raise NotImplementedError

    def state_dict(self) -> State:
        return {"seen": self.seen}

    def load_state_dict(self, state: State) -> None:
        self.seen = state["seen"]


@register("always")
class Always(Condition):
    """Holds on every batch ("always")."""

    def __str__(self) -> str:
        return "always"

    def decide(self, signals: Signals) -> bool:
        return True


@register("never")
class Never(Condition):
    """Holds on no batch: ordinary training of the base ("never")."""

    def __str__(self) -> str:
        return "never"

    def decide(self, signals: Signals) -> bool:
        return False


@register("every")
class Every(Counting):
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
class After(Counting):
    """Every batch after the first ``step`` batches ("after:500").

    Raises:
        ValueError: ``step`` is negative.
    """

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = whole_number("step", step, minimum=0)

    def __str__(self) -> str:
        return f"after:{self.step}"

    def decide_at(self, batch: int, signals: Signals) -> bool:
        return batch >= self.step
