"""A condition on the gradients of both models."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from seeking.conditions.base import Condition, Outcome, Signals, whole_number
from seeking.conditions.registry import register
from seeking.errors import SeekingError


@register("agreement")
class GradientAgreement(Condition):
    """The base's gradient agrees with the latest one of the motivated model on the shared weights ("agreement:0.1").

    Agreement is their cosine, in [-1, 1]. The motivated model's gradient is the one of its latest step, of another
    batch. Where there is none, or none of the last ``refresh`` batches, the condition holds, to get a new one.

    Args:
        threshold: the cosine must be above it.
        refresh: greatest age of the motivated model's gradient, in batches.

    Raises:
        ValueError: ``refresh`` is not positive.
    """

    needs_gradients = True
    state_names = ("gradients", "age")

    def __init__(self, threshold: float = 0.0, refresh: int = 50) -> None:
        self.threshold = threshold
        self.refresh = whole_number("refresh", refresh, minimum=1)
        self.gradients: Mapping[str, Tensor] | None = None
        """Of the latest motivated step, by the base's parameter names."""
        self.age = 0

    def __str__(self) -> str:
        return f"agreement:{self.threshold},{self.refresh}"

    def decide(self, signals: Signals) -> bool:
        self.age += 1
        if not signals.base_stepped:
            return False
        if signals.gradients is None:
            raise SeekingError(f"{self} needs the signal gradients, the base's gradients by parameter name")
        if self.gradients is None or self.age > self.refresh:
            return True
        return cosine(signals.gradients, self.gradients) > self.threshold

    def feedback(self, outcome: Outcome) -> None:
        if outcome.taken and outcome.shared_gradients is not None:
            self.gradients, self.age = dict(outcome.shared_gradients()), 0


def cosine(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """The cosine of two gradients, over the parameters that both have.

    It is 0 if one of them is zero, and NaN if one is not finite.

    Args:
        first: tensors by parameter name.
        second: likewise.

    Raises:
        SeekingError: two tensors of one name have different shapes.
    """
    rows = []
    for name in sorted(first.keys() & second.keys()):
        if first[name].shape != second[name].shape:
            shapes = f"{list(first[name].shape)} and {list(second[name].shape)}"
            raise SeekingError(f"gradients of {name} of the shapes {shapes} cannot be compared")
        gradient = first[name].detach().float().flatten()
        other = second[name].detach().to(gradient.device).float().flatten()
        rows.append(torch.stack([gradient @ other, gradient @ gradient, other @ other]))
    if not rows:
        return 0.0
    product, one_square, other_square = (sum(column) for column in zip(*torch.stack(rows).tolist(), strict=True))
    norms = math.sqrt(one_square) * math.sqrt(other_square)
    return product / norms if norms else 0.0
