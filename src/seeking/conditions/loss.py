"""Conditions on the training loss."""

import math

from seeking.conditions.base import Condition, Signals, whole_number
from seeking.conditions.registry import register


@register("decrease")
class ConsecutiveDecrease(Condition):
    """The paper's condition: the training loss fell for ``n`` consecutive batches ("decrease:2").

    It keeps holding while the loss keeps falling. Batches on which the base rests are left out. For losses in random
    order it holds at 1/(n+1)! of the batches, one in six for n = 2.

    Source: Acheli and Gaaloul, "Motivation is Something You Need", arXiv 2602.21064.

    Raises:
        ValueError: ``n`` is not positive.
    """

    state_names = ("previous", "falls")

    def __init__(self, n: int = 2) -> None:
        self.n = whole_number("n", n, minimum=1)
        self.previous: float | None = None
        self.falls = -1  # The first loss is not a decrease.

    def __str__(self) -> str:
        return f"decrease:{self.n}"

    def decide(self, signals: Signals) -> bool:
        if not signals.base_stepped:
            return False
        self.falls = self.falls + 1 if self.previous is None or signals.loss < self.previous else 0
        self.previous = signals.loss
        if not math.isfinite(signals.loss):
            self.previous, self.falls = None, -1
        return self.falls >= self.n
