"""What a motivation condition is, and how conditions compose."""

import abc
import math
from typing import Any

from torch import Tensor

State = dict[str, Any]


def batches(name: str, value: float, least: int) -> int:
    """A condition's argument that counts batches.

    Raises:
        ValueError: it is no whole number, or below ``least``.
    """
    if value < least or value != int(value):
        raise ValueError(f"{name} is {value}; it counts batches, a whole number from {least} up")
    return int(value)


class Condition(abc.ABC):
    """Decides, batch by batch, from the run's own signals, whether to be motivated now.

    A condition of your own is a subclass with ``holds`` and, where it remembers anything, ``state_dict`` and
    ``load_state_dict``. Conditions compose with ``&``, ``|`` and ``~``; every part sees every batch.
    """

    def update(self, loss: float | Tensor, **signals: float) -> bool:
        """Take in one batch and decide. A loss that is not finite never motivates.

        Args:
            loss: the base model's training loss on the batch, a number or a tensor of one element.
            signals: whatever else is known. The ``Trainer`` gives ``epoch_length`` (batches) and
                ``learning_rate``.
        """
        loss = loss.item() if isinstance(loss, Tensor) else float(loss)
        held = self.holds(loss, **signals)
        return held and math.isfinite(loss)

    @abc.abstractmethod
    def holds(self, loss: float, **signals: float) -> bool:
        """Take in one batch, whose loss may be anything a float may be, and decide."""

    def __str__(self) -> str:
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def state_dict(self) -> State:
        """Everything that decides the future, as JSON-serialisable values."""
        return {}

    def load_state_dict(self, state: State) -> None:  # noqa: B027 (a condition may have nothing to remember)
        """Go on from where ``state_dict`` was taken."""

    def __and__(self, other: "Condition") -> "Condition":
        return Both(self, other)

    def __or__(self, other: "Condition") -> "Condition":
        return Either(self, other)

    def __invert__(self) -> "Condition":
        return Not(self)


class _Two(Condition):
    symbol: str

    def __init__(self, left: Condition, right: Condition) -> None:
        self.left = left
        self.right = right

    def __str__(self) -> str:
        return " ".join(
            [_enclosed(self.left, type(self), Not), self.symbol, _enclosed(self.right, Not)],
        )

    def state_dict(self) -> State:
        return {"left": self.left.state_dict(), "right": self.right.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.left.load_state_dict(state["left"])
        self.right.load_state_dict(state["right"])


class Both(_Two):
    """``left & right``."""

    symbol = "&"

    def holds(self, loss: float, **signals: float) -> bool:
        left, right = self.left.update(loss, **signals), self.right.update(loss, **signals)
        return left and right


class Either(_Two):
    """``left | right``."""

    symbol = "|"

    def holds(self, loss: float, **signals: float) -> bool:
        left, right = self.left.update(loss, **signals), self.right.update(loss, **signals)
        return left or right


class Not(Condition):
    """``~inner``."""

    def __init__(self, inner: Condition) -> None:
        self.inner = inner

    def __str__(self) -> str:
        return f"~{_enclosed(self.inner, Not)}"

    def holds(self, loss: float, **signals: float) -> bool:
        return not self.inner.update(loss, **signals)

    def state_dict(self) -> State:
        return {"inner": self.inner.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.inner.load_state_dict(state["inner"])


def _enclosed(part: Condition, *bare: type[Condition]) -> str:
    """A part of a composition as text, in parentheses where it would read as another composition without."""
    return f"({part})" if isinstance(part, (_Two, Not)) and not isinstance(part, bare) else str(part)
