"""What a condition is (signals in, a decision out, the outcome of the step back in), and how conditions compose."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

State = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What is known when a condition decides, after the base's step on a batch. None: not known.

    Attributes:
        loss: the base's training loss on the batch.
        step: batches before this one.
        steps: batches of the whole run.
        epoch_length: batches of an epoch.
        learning_rate: of the base's step.
        flops_spent: training FLOPs so far, the base's step on this batch included.
        flops_planned: training FLOPs that the whole run may take, where it has a budget.
        base_flops: FLOPs of a training step of the base on this batch.
        motivated_flops: FLOPs of a training step of the motivated model on this batch.
        gradients: the base's gradients of this batch by parameter name, as its optimizer saw them; only for conditions
            with ``needs_gradients``.
        extra: signals of the caller's own, by name.
    """

    loss: float
    step: int | None = None
    steps: int | None = None
    epoch_length: int | None = None
    learning_rate: float | None = None
    flops_spent: float | None = None
    flops_planned: float | None = None
    base_flops: float | None = None
    motivated_flops: float | None = None
    gradients: Mapping[str, Tensor] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def keywords(self) -> dict[str, Any]:
        """The known signals by name, without the loss."""
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("loss", "extra")}
        return {**{name: value for name, value in named.items() if value is not None}, **self.extra}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training step did.

    Attributes:
        loss: before the step, the mean over all processes.
        grad_norm: of the whole gradient, before it is clipped.
        flops: of the step.
        taken: False if the step was skipped because the loss or the gradient was NaN or infinite.
        gradients: by parameter name, as the optimizer saw them; only where a condition needs them.
    """

    loss: float
    grad_norm: float
    flops: float
    taken: bool = True
    gradients: Mapping[str, Tensor] | None = None


class Condition:
    """Decides, batch by batch, from the run's own signals, whether to be motivated now.

    A custom condition is a subclass with ``decide`` (or ``holds``, which gets the same as keywords) and, if it
    remembers anything, ``state_dict`` and ``load_state_dict``. One that learns from what its motivated steps did has
    ``feedback`` as well. Conditions compose with ``&``, ``|`` and ``~``; every part sees every batch.
    """

    @property
    def needs_gradients(self) -> bool:
        """Whether ``Signals.gradients`` is needed, which keeps the base's gradients in memory a little longer."""
        return False

    def update(self, loss: float | Tensor, signals: Signals | None = None, **named: Any) -> bool:
        """Take in one batch and decide. A loss that is NaN or infinite never motivates.

        Args:
            loss: the base's training loss on the batch, a number or a tensor of one element.
            signals: what else is known; the ``Trainer`` knows all of them.
            named: further signals by name.
        """
        value = loss.item() if isinstance(loss, Tensor) else float(loss)
        known = {name: named.pop(name) for name in list(named) if name in Signals.__dataclass_fields__}
        signals = dataclasses.replace(signals or Signals(loss=value), **known, loss=value)
        if named:
            signals = dataclasses.replace(signals, extra={**signals.extra, **named})
        return self.decide(signals) and math.isfinite(value)

    def decide(self, signals: Signals) -> bool:
        """Take in one batch, whose loss may be NaN or infinite, and decide."""
        return self.holds(signals.loss, **signals.keywords())

    def holds(self, loss: float, **signals: Any) -> bool:
        """As ``decide``, with the known signals as keywords."""
        raise NotImplementedError(f"{type(self).__name__} must have decide(signals) or holds(loss, **signals)")

    def feedback(self, outcome: Outcome) -> None:
        """Take in what the motivated step on the batch decided last did; not called if there was none."""

    def __str__(self) -> str:
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def state_dict(self) -> State:
        """Everything that decides the future, as JSON-serialisable values."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Continue from where ``state_dict`` was called."""

    def __and__(self, other: "Condition") -> "Condition":
        return And(self, other)

    def __or__(self, other: "Condition") -> "Condition":
        return Or(self, other)

    def __invert__(self) -> "Condition":
        return Not(self)


class _Binary(Condition):
    symbol: ClassVar[str]

    def __init__(self, left: Condition, right: Condition) -> None:
        self.left = left
        self.right = right

    def __str__(self) -> str:
        return " ".join([_parenthesized(self.left, type(self), Not), self.symbol, _parenthesized(self.right, Not)])

    @property
    def needs_gradients(self) -> bool:
        return self.left.needs_gradients or self.right.needs_gradients

    def _update_both(self, signals: Signals) -> tuple[bool, bool]:
        return self.left.update(signals.loss, signals), self.right.update(signals.loss, signals)

    def feedback(self, outcome: Outcome) -> None:
        self.left.feedback(outcome)
        self.right.feedback(outcome)

    def state_dict(self) -> State:
        return {"left": self.left.state_dict(), "right": self.right.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.left.load_state_dict(state["left"])
        self.right.load_state_dict(state["right"])


class And(_Binary):
    """``left & right``."""

    symbol = "&"

    def decide(self, signals: Signals) -> bool:
        return all(self._update_both(signals))


class Or(_Binary):
    """``left | right``."""

    symbol = "|"

    def decide(self, signals: Signals) -> bool:
        return any(self._update_both(signals))


class Wrapper(Condition):
    """A condition around another one, which sees every batch and every outcome."""

    def __init__(self, inner: Condition) -> None:
        self.inner = inner

    @property
    def needs_gradients(self) -> bool:
        return self.inner.needs_gradients

    def feedback(self, outcome: Outcome) -> None:
        self.inner.feedback(outcome)

    def state_dict(self) -> State:
        return {"inner": self.inner.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.inner.load_state_dict(state["inner"])


class Not(Wrapper):
    """``~inner``."""

    def __str__(self) -> str:
        return f"~{_parenthesized(self.inner, Not)}"

    def decide(self, signals: Signals) -> bool:
        return not self.inner.update(signals.loss, signals)


def _parenthesized(part: Condition, *bare: type[Condition]) -> str:
    """A part of a composition as text, in parentheses where it would otherwise read as another composition."""
    return f"({part})" if isinstance(part, (_Binary, Not)) and not isinstance(part, bare) else str(part)


def whole_number(name: str, value: float, minimum: int) -> int:
    """An argument that counts batches.

    Raises:
        ValueError: it is not a whole number, or below ``minimum``.
    """
    if value < minimum or value != int(value):
        raise ValueError(f"{name} is {value}; it counts batches, a whole number from {minimum} up")
    return int(value)
