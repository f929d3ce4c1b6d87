"""A condition on the loss on held-out training data."""

from seeking.conditions.base import Signals, State, needed, whole_number
from seeking.conditions.loss import ConsecutiveDecrease
from seeking.conditions.registry import register
from seeking.conditions.schedule import Counting


@register("held_out")
class HeldOutDecrease(Counting):
    """The base's loss on held-out training data fell, for ``n`` consecutive measurements ("held_out:20,1").

    It is measured on every ``k``-th batch; the decision is kept until the next measurement.

    Args:
        k: batches between two measurements.
        n: number of measurements.

    Raises:
        ValueError: ``k`` or ``n`` is not positive.
    """

    needs_held_out = True

    def __init__(self, k: int = 20, n: int = 1) -> None:
        super().__init__()
        self.k = whole_number("k", k, minimum=1)
        self.measured = ConsecutiveDecrease(n)

    def __str__(self) -> str:
        return f"held_out:{self.k},{self.measured.n}"

    def decide_at(self, batch: int, signals: Signals) -> bool:
        if (batch + 1) % self.k == 0:
            self.measured.update(needed(self, "held_out_loss", signals.held_out_loss))
        return self.measured.falls >= self.measured.n

    def state_dict(self) -> State:
        return {**super().state_dict(), **self.measured.state_dict()}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.measured.load_state_dict(state)
