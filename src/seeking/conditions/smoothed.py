"""A condition on the smoothed training loss."""

import math

from seeking.conditions.base import Condition, Signals, whole_number
from seeking.conditions.moving_average import accumulate, decay_rate
from seeking.conditions.registry import register


@register("smoothed")
class SmoothedDecrease(Condition):
    """The exponential moving average of the training loss fell for ``n`` consecutive batches ("smoothed:3,0.9").

    The average falls when the loss is below it. So for losses in random order this holds at about 1/2^n of the batches.
    Batches on which the base takes no step are left out.

    Args:
        n: number of batches.
        decay: of the moving average; it remembers about 1 / (1 - decay) batches.

    Raises:
        ValueError: ``n`` is not positive, or ``decay`` is not in [0, 1).
    """

    state_names = ("total", "weight", "falls")

    def __init__(self, n: int = 3, decay: float = 0.9) -> None:
        self.n = whole_number("n", n, minimum=1)
        self.decay = decay_rate(decay)
        self.total = 0.0
        self.weight = 0.0
        self.falls = 0

    def __str__(self) -> str:
        return f"smoothed:{self.n},{self.decay}"

    def decide(self, signals: Signals) -> bool:
        if not signals.base_stepped:
            return False
        if not math.isfinite(signals.loss):
            self.falls = 0
            return False
        fell = self.weight > 0 and signals.loss < self.total / self.weight
        self.falls = self.falls + 1 if fell else 0
        self.total, self.weight = accumulate(signals.loss, self.total, self.weight, self.decay)
        return self.falls >= self.n
