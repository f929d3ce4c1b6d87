"""How metrics are named and shown."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from seeking.training.metrics import BETTER


@dataclass(frozen=True)
class Metric:
    """A metric that models are compared by.

    Attributes:
        name: in evaluations.
        title: in tables and figures.
        unit: after numbers; empty if there is none.
        scale: that values are shown at.
        digits: after the decimal point; None for four digits in all, in a unit that is not known.
        least_span: that an axis spans at least, as shown.
        level: by how much a value may be worse than another, as shown, and still count as level with it.
    """

    name: str
    title: str
    unit: str = ""
    scale: float = 1.0
    digits: int | None = 4
    least_span: float = 0.0
    level: float = 0.0

    @property
    def higher_is_better(self) -> bool:
        """Whether it is; of a metric of the user's own this is not known, and not asked."""
        return BETTER.get(self.name) == "max"

    @property
    def label(self) -> str:
        """Of an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def sentence(self) -> str:
        """As a sentence begins with it."""
        name = self.title[0].upper() + self.title[1:]
        return (
            f"{name} in {self.unit}"
            if self.unit
            else f"{name} ({'higher' if self.higher_is_better else 'lower'} is better)"
        )

    def number(self, value: float, sign: str = "", like: float | None = None) -> str:
        """A value, without its unit; with the digits of another one that it is shown beside."""
        shown, digits = self.scale * value, self.digits
        if digits is None:
            size = abs(shown if like is None else self.scale * like)
            digits = max(0, 3 - math.floor(math.log10(size))) if size and math.isfinite(size) else 0
        return f"{round(shown, digits) + 0.0:{sign}.{digits}f}"

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.number(value)}{self.unit}"

    def goodness(self, value: float | None) -> float:
        """The higher, the better; least for None."""
        if value is None:
            return float("-inf")
        return value if self.higher_is_better else -value


ACCURACY = Metric("accuracy", "accuracy", "%", 100, 2, least_span=2.0, level=0.3)
BITS_PER_BYTE = Metric("bits_per_byte", "bits per byte", digits=3, least_span=0.02, level=0.01)
RMSE = Metric("rmse", "RMSE", digits=None)
LOSS = Metric("loss", "loss")


KNOWN = {metric.name: metric for metric in (ACCURACY, BITS_PER_BYTE, RMSE, LOSS)}


def metric_of(name: str) -> Metric:
    """A metric by its name in evaluations; one of the user's own has no unit."""
    return KNOWN.get(name) or Metric(name, name, digits=None)


def shown(metrics: Iterable[Mapping[str, Any]], best: str | None = None) -> Metric:
    """The metric that models with these metrics are told by.

    Args:
        metrics: of each model, by name.
        best: the metric by which the best weights are kept, which goes first; but not the loss.
    """
    every = [*metrics]
    names = [*([best] if best and best != LOSS.name else []), *KNOWN]
    return metric_of(next((name for name in names if every and all(name in of for of in every)), LOSS.name))
