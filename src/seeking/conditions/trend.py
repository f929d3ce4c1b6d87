"""A condition on the training loss against its trend."""

import math

from seeking.conditions.base import Condition, Signals
from seeking.conditions.moving_average import accumulate, decay_rate
from seeking.conditions.registry import register


@register("below_trend")
class BelowTrend(Condition):
    """The training loss is more than ``deviations`` standard deviations below its trend ("below_trend:1,0.95").

    The trend is linear: Brown's double exponential smoothing forecasts the next loss, and the standard deviation is
    that of its errors so far. For Gaussian noise around a linear trend this holds at about 16 % of the batches
    (1 deviation), 31 % (0.5) or 50 % (0). It never holds on the first 1 / (1 - decay) batches. Batches on which the
    base takes no step are left out.

    Args:
        deviations: number of standard deviations; a negative one moves the bound above the trend.
        decay: of the smoothing; it remembers about 1 / (1 - decay) batches.

    Raises:
        ValueError: ``decay`` is not in [0, 1).
    """

    name = "below_trend"
    state_names = ("level", "slope", "variance", "weight", "count")

    def __init__(self, deviations: float = 1.0, decay: float = 0.95) -> None:
        self.deviations = deviations
        self.decay = decay_rate(decay)
        self.level, self.slope, self.variance, self.weight, self.count = 0.0, 0.0, 0.0, 0.0, 0

    def __str__(self) -> str:
        return f"{self.name}:{self.deviations},{self.decay}"

    def value(self, signals: Signals) -> float:
        """The number that has a trend."""
        return signals.loss

    def decide(self, signals: Signals) -> bool:
        if not signals.base_stepped or not math.isfinite(signals.loss):
            return False
        value = self.value(signals)
        if not math.isfinite(value):  # A gradient may overflow under fp16.
            return False
        if not self.count:
            self.level = value
        error = value - (self.level + self.slope)
        bound = -self.deviations * math.sqrt(self.variance / self.weight) if self.weight else -math.inf
        holds = self.count >= 1 / (1 - self.decay) and error < bound
        self.level += self.slope + (1 - self.decay**2) * error
        self.slope += (1 - self.decay) ** 2 * error
        if self.count:  # The first value has no forecast.
            self.variance, self.weight = accumulate(error * error, self.variance, self.weight, self.decay)
        self.count += 1
        if not math.isfinite(self.level + self.slope + self.variance):
            self.level, self.slope, self.variance, self.weight, self.count = 0.0, 0.0, 0.0, 0.0, 0
        return holds
