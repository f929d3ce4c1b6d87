"""Which operations decide: numbers that differ may come to the same there, so that a batch shows no difference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seeking.matching.axes import Axis
from seeking.matching.operation import Operation
from seeking.matching.parts import COMPETITIONS, THRESHOLDS
from seeking.weights_map import is_real

STEPS = {"sgn", "fix", "heaviside", "floor_divide", "remainder", "fmod", "copysign", "angle", "hardshrink"}
STEPS |= {"histc", "histogram"}
"""Operations that are constant but for jumps, over a part of their range at least."""

CHOICES = {"maximum", "minimum", "fmax", "fmin", "clamp", "clamp_min", "clamp_max"}
"""Operations that take one of two numbers. Activations are not among them: of many numbers, they show some."""

READS = {"_local_scalar_dense", "equal"}
"""Operations that hand numbers to Python."""

DECIDE = COMPETITIONS | THRESHOLDS | STEPS | CHOICES | READS

NUMBERS_ALONE = {"isnan", "isinf", "isfinite", "isposinf", "isneginf"}
"""Operations that only ask whether these are finite numbers."""

BY_THE_WAY = ("batch_norm", "rnn", "attention", "dropout", "embedding_bag", "linalg")
"""Parts of names of operations whose integers are states or pivots."""


OVERWRITING = {"mul", "fill", "zero"}
"""Elementwise operations that leave nothing of what was there, which may be memory that was never written."""


@dataclass(frozen=True)
class Decision:
    """An operation that decides, or may hide what it takes.

    Attributes:
        name: without namespace and overload.
        operands: shapes of the real tensors that it takes.
        axes: of these tensors.
    """

    name: str
    operands: list[tuple[int, ...]]
    axes: list[list[Axis]]


def decides(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation decides by real numbers.

    Args:
        name: without namespace and overload.
        inputs: its tensors.
        outputs: its results, of which integers and booleans tell of a decision.
        kwargs: its keyword arguments.
    """
    if not any(map(is_real, inputs)):
        return False
    name = name.rstrip("_")
    if name in DECIDE or kwargs.get("rounding_mode"):
        return True
    takes_shape_alone = name.startswith("new_") or name.endswith("_like")
    if takes_shape_alone or name in NUMBERS_ALONE or any(part in name for part in BY_THE_WAY):
        return False
    return not all(map(is_real, outputs))


def may_hide(operation: Operation, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    """Whether an operation may make one number of all, as a ReLU does if they are negative.

    Args:
        operation: any.
        inputs: its tensors.
        outputs: its results.
    """
    alone = operation.pointwise and len(inputs) == 1 and operation.short_name.rstrip("_") not in OVERWRITING
    return alone and all(map(is_real, (*inputs, *outputs)))
