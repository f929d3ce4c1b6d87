"""Which operations decide: numbers that differ may come to the same there, so that a batch shows no difference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seeking.matching.axes import Axis
from seeking.matching.parts import BOUNDS, COMPETITIONS, THRESHOLDS
from seeking.weights_map import is_real

FLAT = COMPETITIONS | THRESHOLDS | BOUNDS
FLAT |= {"relu", "relu6", "hardsigmoid", "hardswish", "rrelu_with_noise", "logit", "renorm", "sgn", "fix", "frac"}
FLAT |= {
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "floor_divide",
    "fmod",
    "remainder",
    "copysign",
    "heaviside",
    "nextafter",
    "angle",
}
FLAT |= {"histc", "histogram", "scatter_reduce", "index_reduce", "segment_reduce", "grid_sampler_2d", "grid_sampler_3d"}
"""Operations from real numbers to real numbers that are constant somewhere, or jump."""

SATURATING = {
    "sigmoid",
    "tanh",
    "erf",
    "erfc",
    "softplus",
    "log_sigmoid_forward",
    "gelu",
    "silu",
    "mish",
    "exp",
    "exp2",
}
SATURATING |= {"expm1", "_softmax", "_log_softmax", "logsumexp", "_logcumsumexp", "logaddexp", "logaddexp2"}
SATURATING |= {"linalg_vector_norm", "norm", "_cdist_forward", "special_log_ndtr", "special_ndtr", "atan", "pow"}
"""Operations whose results differ by less than is seen, for large numbers or where a greater one counts alone."""

MAX_STATISTIC = 1 << 16
"""Entries of a tensor that may be a statistic; larger ones that saturate, such as scores of attention, are not kept."""

READS = {"_local_scalar_dense", "equal"}
"""Operations that hand numbers to Python."""

NUMBERS_ALONE = {"isnan", "isinf", "isfinite", "isposinf", "isneginf"}
"""Operations that only ask whether these are finite numbers."""

BY_THE_WAY = ("batch_norm", "rnn", "attention", "dropout", "embedding_bag", "linalg")
"""Parts of names of operations whose integers are states or pivots."""


@dataclass(frozen=True)
class Decision:
    """An operation that decides.

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
    if name in SATURATING:
        return max(tensor.numel() for tensor in inputs) <= MAX_STATISTIC
    if name in FLAT or name in READS or kwargs.get("rounding_mode") or "polynomial" in name:
        return True
    takes_shape_alone = name.startswith("new_") or name.endswith("_like")
    if takes_shape_alone or name in NUMBERS_ALONE or any(part in name for part in BY_THE_WAY):
        return False
    return not all(map(is_real, outputs))
