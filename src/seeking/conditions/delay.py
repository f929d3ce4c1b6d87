"""A condition that holds a batch later than another."""

from seeking.conditions.base import Condition, Signals, Wrapper
from seeking.conditions.registry import register


@register("next", wraps=True)
class Next(Wrapper):
    """The batch after one at which the inner condition holds ("next(decrease:2)")."""

    state_names = ("previous",)

    def __init__(self, inner: Condition) -> None:
        super().__init__(inner)
        self.previous = False

    def __str__(self) -> str:
        return f"next({self.inner})"

    def decide(self, signals: Signals) -> bool:
        decision, self.previous = self.previous, self.inner.update(signals.loss, signals)
        return decision
