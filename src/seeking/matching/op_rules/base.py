"""How a rule says what one operation does to axes.

A rule is a function from a call to the axes of each result, registered for operations by name:

    @op_rule("t")
    def _t(call: OpCall) -> list[list[Axis]]:
        return [call.axes(call["self"])[::-1]]
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seeking.matching.axes import INPUT, MIXED, Axis, UnalignedError, constant, fix, free, is_fixed, unify

Axes = list[list[Axis]]
"""For each result of an operation, an axis for each dimension."""


@dataclass(slots=True)
class OpCall:
    """One call of an operation; ``call["dim"]`` is an argument by its name in the operation's schema.

    Attributes:
        parameters: position and default of each of the operation's parameters, by name.
        args: positional arguments.
        kwargs: keyword arguments.
        inputs: the tensors among the arguments.
        outputs: the tensors among the results.
        axes: the axes of a tensor.
        scores: the axes that were summed over by the product which the inputs come from, and the outputs will. A
            softmax of such scores makes the product attention.
        scaled: the constants by which tensors that the inputs come from were multiplied; NaN for an unknown one.
        fix_head: declares that an axis is that of a head, whose products attention scales by these constants.
        producers: by the id of a tensor, the operation that it comes from, without namespace.
        fix_if_used: declares that an axis must be of one size in both models, once an operation takes a result.
    """

    parameters: Mapping[str, tuple[int, Any]]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    axes: Callable[[Tensor], list[Axis]]
    scores: list[Axis]
    scaled: frozenset[float]
    fix_head: Callable[[Axis, Iterable[float]], None]
    producers: Mapping[int, str]
    fix_if_used: Callable[[Tensor, Axis, str], None]

    def producer(self, tensor: Tensor) -> str:
        """The operation that a tensor comes from, without namespace; empty for weights and inputs."""
        return self.producers.get(id(tensor), "")

    def dims(self) -> list[int]:
        """The dimensions of the first input that the operation goes along: what ``dim`` names, or all of them."""
        dim = self.get("dim")
        return [dim] if type(dim) is int else list(dim or range(self.inputs[0].ndim))

    def __contains__(self, parameter: str) -> bool:
        return parameter in self.parameters

    def get(self, parameter: str) -> Any:
        """The argument; None if the operation has no such parameter."""
        return self[parameter] if parameter in self.parameters else None

    def __getitem__(self, parameter: str) -> Any:
        position, default = self.parameters[parameter]
        return self.args[position] if position < len(self.args) else self.kwargs.get(parameter, default)


OpRule = Callable[[OpCall], Axes | None]
"""Gives the axes of each result, or None for a form of the call that it does not know.

It may raise UnalignedError: the parts of the axes do not begin and end where the operation cuts them.
"""

OP_RULES: dict[str, OpRule] = {}


def op_rule(*names: str) -> Callable[[OpRule], OpRule]:
    """Register the rule of operations, by name without overload; ATen's need no namespace.

    An operation in place (``t_``) has the rule of its functional form unless it has one of its own.
    """

    def register(rule: OpRule) -> OpRule:
        OP_RULES.update(dict.fromkeys((name if "::" in name else f"aten::{name}" for name in names), rule))
        return rule

    return register


def unify_or_fix(first: Axis, second: Axis) -> None:
    """Unify two axes or, where their boundaries do not meet, declare both to be of one size in both models."""
    try:
        unify(first, second)
    except UnalignedError:
        fix(first, MIXED)
        fix(second, MIXED)


def broadcast(call: OpCall) -> Axes:
    """Axes of an elementwise operation: the inputs are broadcast against each other."""
    results = []
    for output in call.outputs:
        axes: list[Axis | None] = [None] * output.ndim
        fits = False
        for tensor in call.inputs:
            offset = output.ndim - tensor.ndim
            if offset < 0 or any(size not in (1, output.shape[dim + offset]) for dim, size in enumerate(tensor.shape)):
                continue
            fits = True
            for dim, axis in enumerate(call.axes(tensor)):
                if tensor.shape[dim] == output.shape[dim + offset]:
                    known = axes[dim + offset]
                    if known is None:
                        axes[dim + offset] = axis
                    else:
                        unify_or_fix(known, axis)
        known_axes = [free(size) if axis is None else axis for axis, size in zip(axes, output.shape, strict=True)]
        results.append(known_axes if fits else same_where_size_stays(call, output))
    return results


def same_where_size_stays(call: OpCall, output: Tensor) -> list[Axis]:
    """Axes of a result whose dimensions are the first input's where they keep their place and size.

    The others are positions, as after pooling an image, or something new.
    """
    source = call.inputs[0]
    source_axes = call.axes(source)
    axes = []
    for dim, size in enumerate(output.shape):
        axis = source_axes[dim] if dim < source.ndim else None
        if axis is not None and source.shape[dim] == size:
            axes.append(axis)
        else:
            is_position = dim >= 2 and output.ndim > 3 and axis is not None and is_fixed(axis)
            axes.append(constant(size, INPUT) if is_position else free(size))
    return axes


def mixed(call: OpCall) -> Axes:
    """Axes of results whose parts do not begin and end where the first input's do: those channels cannot grow."""
    results = []
    for output in call.outputs:
        source = call.inputs[0]
        for dim, axis in enumerate(call.axes(source)):
            if dim >= output.ndim or source.shape[dim] != output.shape[dim]:
                fix(axis, MIXED)
        results.append(same_where_size_stays(call, output))
    return results


def same_where_sizes_stay(call: OpCall) -> Axes:
    """Axes of all results, each as ``same_where_size_stays`` says."""
    return [same_where_size_stays(call, output) for output in call.outputs]
