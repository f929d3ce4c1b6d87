"""Statistics over channels, as of norms: which operations reduce channels, and what is divided by the result."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from seeking.matching.axes import Axis, Space, segments_of, terminal
from seeking.matching.op_rules import OpCall

NORMS = {"native_layer_norm", "native_group_norm", "_fused_rms_norm"}
"""Operations that reduce and divide in one."""

SUMS = {"sum", "nansum", "linalg_vector_norm", "norm"}
"""Reductions that grow with the number of channels: what is divided by that number, or its root, is a mean."""

SHARES = {"logsumexp", "prod"}
"""Reductions to which entries that are zero contribute."""

VOTES = {"all", "any"}
"""Reductions in which each entry may decide alone."""

MIXING = {"_adaptive_avg_pool2d": 2, "_adaptive_avg_pool3d": 3, "_linalg_det": 2, "_linalg_slogdet": 2}
"""Operations that make other entries of the last dimensions, with the number of these."""

LOSSES = {"mse_loss", "smooth_l1_loss", "huber_loss"}
"""Means over all dimensions of two tensors, if they are asked for one."""

REDUCTIONS = (
    NORMS
    | SUMS
    | SHARES
    | VOTES
    | MIXING.keys()
    | LOSSES
    | {"mean", "var", "std", "var_mean", "std_mean", "amax", "max"}
)

WEIGHT_PRODUCTS = {"mm", "_grouped_mm", "addmm", "mv", "dot", "vdot", "linear", "convolution", "_convolution"}
"""Products that may be with weights."""
PRODUCTS = WEIGHT_PRODUCTS | {"bmm", "baddbmm"}
"""All of them, those of activations among themselves as well."""
INVERSES = {"rsqrt", "reciprocal"}

POSITIVE_AT_ZERO = {"exp", "exp2", "sigmoid", "hardsigmoid", "softplus", "cos", "cosh"}
"""Functions of which entries that are zero have a share, too."""

GATES = POSITIVE_AT_ZERO | {"tanh", "sin", "sinh", "log", "log1p", "expm1", "relu", "silu", "gelu", "erf"}
"""Functions that no norm applies to its statistics."""


@dataclass
class Reduction:
    """A reduction over dimensions of one tensor.

    Attributes:
        name: of the operation, without namespace and overload.
        shape: of the tensor.
        axes: of the dimensions that are reduced, by dimension.
        scaled: axes of the tensors that were divided by the result, or from which it was subtracted.
        is_share: whether values are summed to which zeros would contribute, as in a softmax.
        is_reused: whether the result meets channels in another way than a norm's.
    """

    name: str
    shape: tuple[int, ...]
    axes: dict[int, Axis]
    scaled: list[list[Axis]] = field(default_factory=list)
    is_share: bool = False
    is_reused: bool = False

    def normalizes(self) -> bool:
        """Whether the reduced channels themselves are divided by the result, or centered."""
        if self.name in NORMS:
            return True
        reduced = {space for axis in self.axes.values() for space in _spaces(axis) if not space.fixed}
        return not (self.is_share or self.is_reused) and any(
            reduced <= {space for axis in axes for space in _spaces(axis)} for axes in self.scaled
        )


def _spaces(axis: Axis) -> set[Space]:
    spaces: set[Space] = set()
    for space in terminal(axis):
        segments = [] if space.fixed else segments_of(space)
        spaces.update(*map(_spaces, segments)) if segments else spaces.add(space)
    return spaces


class Statistics:
    """Follows reductions through the operations after them.

    Attributes:
        reductions: in the order of the forward pass.
    """

    def __init__(self) -> None:
        self.reductions: list[Reduction] = []
        self._sources: dict[int, frozenset[int]] = {}
        self._inverse: set[int] = set()
        self._pure: set[int] = set()
        """Ids of tensors made of statistics and numbers alone."""

    def follow(self, name: str, call: OpCall) -> None:
        """Take note of an operation.

        Args:
            name: of the operation, without namespace and overload.
            call: its arguments and results.
        """
        base_name = name.removesuffix("_")
        inputs = call.inputs
        self._follow_uses(base_name, inputs, call.outputs)
        if name in PRODUCTS:
            return
        sources = frozenset().union(*(self._sources.get(id(tensor), frozenset()) for tensor in inputs))
        if base_name in ("div", "sub") and len(inputs) == 2:
            self._scale(inputs[1], call.axes(inputs[0]))
        elif base_name == "mul" and len(inputs) == 2:
            for first, second in (inputs, inputs[::-1]):
                if id(second) in self._inverse:
                    self._scale(second, call.axes(first))
        if name in REDUCTIONS and not (name == "max" and "other" in call):
            sources |= {len(self.reductions)}
            is_share = name in SHARES or call.producer(inputs[0]).removesuffix("_") in POSITIVE_AT_ZERO
            axes = reduced_axes(name, call)
            self.reductions.append(Reduction(name, tuple(inputs[0].shape), axes, is_share=is_share))
            if name not in NORMS and any(not space.fixed for axis in axes.values() for space in _spaces(axis)):
                self._pure.update(map(id, call.outputs))
        if not sources:
            return
        inverse = base_name in INVERSES or (base_name == "pow" and _is_negative(call))
        inverse = inverse or any(id(tensor) in self._inverse for tensor in inputs)
        for tensor in call.outputs:
            self._sources[id(tensor)] = sources
            if inverse:
                self._inverse.add(id(tensor))

    def _follow_uses(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Note statistics that meet channels in another way than a norm's."""
        pure = [tensor for tensor in inputs if id(tensor) in self._pure]
        if not pure:
            return
        others = [tensor for tensor in inputs if id(tensor) not in self._pure and tensor.numel() != 1]
        if not others and name not in GATES:
            self._pure.update(map(id, outputs))
            return
        divides = name == "div" and inputs[0] is others[0]
        if divides or name == "sub" or (name == "mul" and all(id(tensor) in self._inverse for tensor in pure)):
            return
        for tensor in pure:
            for source in self._sources.get(id(tensor), ()):
                self.reductions[source].is_reused = True

    def _scale(self, by: Tensor, axes: list[Axis]) -> None:
        for source in self._sources.get(id(by), ()):
            self.reductions[source].scaled.append(axes)


def reduced_axes(name: str, call: OpCall) -> dict[int, Axis]:
    """The axes of the dimensions that an operation goes along, such as a reduction, by dimension."""
    tensor = call.inputs[0]
    axes = call.axes(tensor)
    if name == "native_group_norm":
        return {1: axes[1]}
    if name in NORMS:
        rank = len(call["normalized_shape"])
        return {dim: axes[dim] for dim in range(tensor.ndim - rank, tensor.ndim)}
    if name in LOSSES and call.outputs[0].ndim:
        return {}
    if name in MIXING:
        return {dim: axes[dim] for dim in range(tensor.ndim - MIXING[name], tensor.ndim)}
    return {dim % tensor.ndim: axes[dim] for dim in call.dims()} if tensor.ndim else {}


def _is_negative(call: OpCall) -> bool:
    exponent = call.get("exponent")
    return isinstance(exponent, (int, float)) and exponent < 0
