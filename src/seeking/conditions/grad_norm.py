"""A condition on the norm of the gradient."""

from seeking.conditions.base import Signals, needed
from seeking.conditions.registry import register
from seeking.conditions.trend import BelowTrend


@register("grad_norm")
class LowGradNorm(BelowTrend):
    """The norm of the base's gradient is more than ``deviations`` standard deviations below its trend ("grad_norm:1").

    As ``BelowTrend``, for the norm before clipping in place of the loss. ``~grad_norm:-1`` holds if the norm is more
    than one standard deviation above its trend.

    Raises:
        ValueError: ``decay`` is not in [0, 1).
    """

    needs_grad_norm = True

    name = "grad_norm"

    def value(self, signals: Signals) -> float:
        """The norm.

        Raises:
            SeekingError: it is unknown.
        """
        return needed(self, "grad_norm", signals.grad_norm)
