"""The base class of conditions, their signals and outcomes, and their compositions."""

import dataclasses
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from seeking.errors import SeekingError

State = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class OnePass:
    """What one forward pass for both models saves where both step on a batch.

    Attributes:
        flops: FLOPs that it saves on a batch of this size.
        until: index of the batch from which on each model takes a pass of its own.
        now: whether one pass will serve both on this batch, if the condition holds; ``Signals.motivated_flops`` is then
            less by what it saves.
        base_steps: number of further batches before ``until`` on which the base will take a step, if known.
    """

    flops: float
    until: int
    now: bool = False
    base_steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class Signals:
    """The inputs of a condition, after the base's step on a batch. None means unknown.

    Attributes:
        loss: the base's training loss on the batch.
        step: number of batches before this one.
        steps: number of batches of the run.
        epoch_length: number of batches in an epoch.
        learning_rate: learning rate of the base's step.
        flops_spent: training FLOPs so far, including the base's step on this batch.
        flops_planned: training FLOPs of the run, if it has a budget, but for what is still spent on anything but steps.
        base_flops: FLOPs of a training step of the base on this batch.
        motivated_flops: FLOPs of a training step of the motivated model on this batch.
        one_pass: what one pass for both models saves, if it does so on further batches.
        batch_share: samples of this batch over the mean of the run's batches so far.
        base_stepped: whether the base took a step on this batch or, where the condition decides before it, one since
            the condition last decided; if not, ``loss`` is that of its latest step.
        base_steps_left: in a run with a budget, number of further batches on which the base will take a step, where
            its condition is a schedule; if that depends on the budget, from the batch on from which it no longer does.
        grad_norm: norm of the base's full gradient of this batch, before clipping.
        held_out_loss: measures the base's loss on held-out training data, which costs forward passes.
        gradients: the base's gradients of this batch by parameter name, as its optimizer saw them; only for conditions
            with ``needs_gradients``.
        extra: custom signals by name.
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
    one_pass: OnePass | None = None
    batch_share: float | None = None
    base_stepped: bool = True
    base_steps_left: int | None = None
    grad_norm: float | None = None
    held_out_loss: Callable[[], float] | None = None
    gradients: Mapping[str, Tensor] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def keywords(self) -> dict[str, Any]:
        """The known signals by name, without the loss."""
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("loss", "extra")}
        return {**{name: value for name, value in named.items() if value is not None}, **self.extra}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a training step.

    Attributes:
        loss: loss before the step, averaged over all processes.
        grad_norm: norm of the full gradient before clipping.
        flops: FLOPs of the step.
        taken: False if the step was skipped because the loss or the gradient was NaN or infinite.
        gradients: gradients by parameter name, as the optimizer saw them; only if a condition needs them.
        shared_gradients: of a motivated step: gives the part of ``gradients`` that belongs to the shared weights, by
            the base's parameter names, as copies.
    """

    loss: float
    grad_norm: float
    flops: float
    taken: bool = True
    gradients: Mapping[str, Tensor] | None = None
    shared_gradients: Callable[[], Mapping[str, Tensor]] | None = None


STATE_METHODS = ("state_dict", "load_state_dict")
DECIDING = ("update", "decide", "holds")
"""Methods of which a condition has one of its own."""


class Condition:
    """Decides on each batch whether to take a motivated step.

    A custom condition is a subclass with ``decide`` (or ``holds``, which gets the same as keywords) and, if it
    remembers anything, ``state_names``, or ``state_dict`` and ``load_state_dict``. One that learns from what its
    motivated steps did has ``feedback`` as well. Conditions compose with ``&``, ``|`` and ``~``; every part sees every
    batch.
    """

    state_names: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that a condition remembers."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        saves, restores = (getattr(cls, name) is not getattr(Condition, name) for name in STATE_METHODS)
        if saves != restores:
            missing = STATE_METHODS[saves]
            raise TypeError(f"{cls.__name__} has no {missing}; a condition that remembers something needs both")
        taken = inspect.signature(cls.holds)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in taken.parameters.values()):
            raise TypeError(f"{cls.__name__}.holds{taken} must take **signals, since it gets all known signals by name")

    def __bool__(self) -> bool:
        raise TypeError(f"{self} is neither true nor false; compose conditions with &, | and ~, not with and, or, not")

    @property
    def inner_conditions(self) -> Sequence["Condition"]:
        """Conditions that this one is composed of."""
        return ()

    def decides(self) -> bool:
        """Whether ``decide`` or ``holds`` is defined, here and in all conditions in it."""
        own = any(getattr(getattr(self, name), "__func__", None) is not getattr(Condition, name) for name in DECIDING)
        return own and all(inner.decides() for inner in self.inner_conditions)

    @property
    def needs_gradients(self) -> bool:
        """Whether ``Signals.gradients`` is needed, which keeps the base's gradients in memory a little longer."""
        return any(inner.needs_gradients for inner in self.inner_conditions)

    @property
    def needs_grad_norm(self) -> bool:
        """Whether ``Signals.grad_norm`` is needed, which is not known where one pass serves both models."""
        return any(inner.needs_grad_norm for inner in self.inner_conditions)

    @property
    def needs_held_out(self) -> bool:
        """Whether ``Signals.held_out_loss`` is needed, for which training data are set aside."""
        return any(inner.needs_held_out for inner in self.inner_conditions)

    @property
    def needs_budget(self) -> bool:
        """Whether ``Signals.flops_planned`` is needed, so that the run must have a budget."""
        return any(inner.needs_budget for inner in self.inner_conditions)

    @property
    def uses_budget(self) -> bool:
        """Whether its decisions to come depend on the budget that the run has, if it has one."""
        return self.needs_budget or any(inner.uses_budget for inner in self.inner_conditions)

    @property
    def needs_epoch_length(self) -> bool:
        """Whether ``Signals.epoch_length`` is needed, so that the training data must have a length."""
        return any(inner.needs_epoch_length for inner in self.inner_conditions)

    @property
    def is_schedule(self) -> bool:
        """Whether its decisions depend on nothing that training shows, such as losses, so that they can be foreseen."""
        return bool(self.inner_conditions) and all(inner.is_schedule for inner in self.inner_conditions)

    def update(self, loss: float | Tensor, signals: Signals | None = None, **named: Any) -> bool:
        """Update the condition with one batch and return its decision; False if the loss is NaN or infinite.

        Args:
            loss: the base's training loss on the batch, a number or a scalar tensor.
            signals: further signals; the ``Trainer`` passes all of them.
            named: further signals by name.
        """
        value = loss.item() if isinstance(loss, Tensor) else float(loss)
        known = {name: named.pop(name) for name in list(named) if name in Signals.__dataclass_fields__}
        signals = signals or Signals(loss=value)
        if known or signals.loss is not value:  # A copy takes longer than most decisions.
            signals = dataclasses.replace(signals, **known, loss=value)
        if named:
            signals = dataclasses.replace(signals, extra={**signals.extra, **named})
        held = self.decide(signals)
        if held is None:  # A function without a return would be a condition that never holds.
            raise SeekingError(f"{self} has decided {held}; return true or false")
        return held and math.isfinite(value)

    def decide(self, signals: Signals) -> bool:
        """Update with one batch and return the decision; the loss may be NaN or infinite."""
        return self.holds(signals.loss, **signals.keywords())

    def holds(self, loss: float, **signals: Any) -> bool:
        """Like ``decide``, with the known signals as keyword arguments.

        Raises:
            NotImplementedError: a subclass has defined neither this nor ``decide``.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement decide(signals) or holds(loss, **signals)")

    def feedback(self, outcome: Outcome) -> None:
        """Receive the outcome of the motivated step after a decision; not called if there was no step."""

    def __str__(self) -> str:
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def state_dict(self) -> State:
        """The state as JSON-serializable values: by default the attributes that ``state_names`` names."""
        return {name: getattr(self, name) for name in self.state_names}

    def load_state_dict(self, state: State) -> None:
        """Restore a state from ``state_dict``."""
        for name in self.state_names:
            setattr(self, name, state[name])

    def __and__(self, other: "Condition") -> "Condition":
        return And(self, _condition(other))

    def __or__(self, other: "Condition") -> "Condition":
        return Or(self, _condition(other))

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
    def inner_conditions(self) -> Sequence[Condition]:
        return self.left, self.right

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
    """A condition that wraps another one; the inner one gets every batch and every outcome."""

    def __init__(self, inner: Condition) -> None:
        self.inner = inner

    @property
    def inner_conditions(self) -> Sequence[Condition]:
        return (self.inner,)

    def feedback(self, outcome: Outcome) -> None:
        self.inner.feedback(outcome)

    def state_dict(self) -> State:
        return {**super().state_dict(), "inner": self.inner.state_dict()}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.inner.load_state_dict(state["inner"])


class Not(Wrapper):
    """``~inner``."""

    def __str__(self) -> str:
        return f"~{_parenthesized(self.inner, Not)}"

    def decide(self, signals: Signals) -> bool:
        return not self.inner.update(signals.loss, signals)


def needed(condition: Condition, name: str, value: float | Callable[[], float] | None) -> float:
    """The value of a signal that a condition cannot do without.

    Raises:
        SeekingError: the signal is unknown.
    """
    if value is None:
        raise SeekingError(f"{condition} needs the signal {name}; in your own loop: condition.update(loss, {name}=...)")
    return value() if callable(value) else value


def _condition(value: Any) -> Condition:
    if not isinstance(value, Condition):
        raise TypeError(f"{value!r} is a {type(value).__name__}, not a seeking.Condition")
    return value


def _parenthesized(part: Condition, *bare: type[Condition]) -> str:
    """An operand as text, in parentheses if it would otherwise be parsed differently."""
    return f"({part})" if isinstance(part, (_Binary, Not)) and not isinstance(part, bare) else str(part)


def whole_number(name: str, value: float, minimum: int) -> int:
    """Validate a number of batches.

    Raises:
        ValueError: it is not a whole number, or below ``minimum``.
    """
    if not isinstance(value, numbers.Real) or not value >= minimum or value != value // 1:
        raise ValueError(f"{name} is {value}; it counts batches, a whole number from {minimum} up")
    return int(value)
