"""A condition on the loss on held-out training data."""

import math

from seeking.conditions.base import Signals, State, needed, whole_number
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

    def __init__(self, k: int = 20, n: int = 1) -> None:
        super().__init__()
        self.k = whole_number("k", k, minimum=1)
        self.n = whole_number("n", n, minimum=1)
        self.previous = math.inf
        self.falls = -1  # The first measurement is not a decrease.

    def __str__(self) -> str:
        return f"held_out:{self.k},{self.n}"

    @property
    def needs_held_out(self) -> bool:
        return True

    def decide_at(self, batch: int, signals: Signals) -> bool:
        if (batch + 1) % self.k == 0:
            loss = needed(self, "held_out_loss", signals.held_out_loss)
            self.falls = self.falls + 1 if loss < self.previous else 0
            self.previous = loss
            if not math.isfinite(loss):
                self.previous, self.falls = math.inf, -1
        return self.falls >= self.n

    def state_dict(self) -> State:
        previous = None if self.previous == math.inf else self.previous
        return {**super().state_dict(), "previous": previous, "falls": self.falls}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.previous = math.inf if state["previous"] is None else state["previous"]
        self.falls = state["falls"]
