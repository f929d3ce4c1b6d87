"""Operations that show the entries of a tensor in another shape or order, or a part of them."""

from seeking.matching.axes import (
    INPUT,
    MIXED,
    Axis,
    UnalignedError,
    constant,
    cut,
    fix,
    free,
    is_fixed,
    regroup,
    size_of,
)
from seeking.matching.op_rules.base import Axes, OpCall, op_rule

COMPLEX = "number of parts of a complex number"
TAKEN_APART = "number of parts that are taken one by one"


@op_rule(
    "view",
    "_unsafe_view",
    "_reshape_alias",
    "unsqueeze",
    "squeeze",
    "view_copy",
    "_reshape_copy",
)
def _reshape(call: OpCall) -> Axes:
    source, result = call["self"], call.outputs[0]
    axes = call.axes(source)
    try:
        return [regroup([space for axis in axes for space in axis], result.shape)]
    except UnalignedError:
        # Leading and trailing dimensions that stay are still known.
        before = after = 0
        rank = min(source.ndim, result.ndim)
        while before < rank and source.shape[before] == result.shape[before]:
            before += 1
        while after < rank - before and source.shape[-1 - after] == result.shape[-1 - after]:
            after += 1
        for axis in axes[before : source.ndim - after]:
            fix(axis, MIXED)
        new = [constant(size, INPUT) for size in result.shape[before : result.ndim - after]]
        return [[*axes[:before], *new, *axes[source.ndim - after :]]]


@op_rule("view_as_complex", "view_as_real")
def _view_as_complex(call: OpCall) -> Axes:
    # A pair of real numbers is one complex number.
    axes = call.axes(call["self"])
    if call["self"].is_complex():
        return [[*axes, constant(2, COMPLEX)]]
    fix(axes[-1], COMPLEX)
    return [axes[:-1]]


@op_rule("t")
def _t(call: OpCall) -> Axes:
    return [call.axes(call["self"])[::-1]]


@op_rule("transpose")
def _transpose(call: OpCall) -> Axes:
    axes = list(call.axes(call["self"]))
    if axes:
        first, second = call["dim0"], call["dim1"]
        axes[first], axes[second] = axes[second], axes[first]
    return [axes]


@op_rule("permute")
def _permute(call: OpCall) -> Axes:
    axes = call.axes(call["self"])
    return [[axes[dim] for dim in call["dims"]]]


@op_rule("expand", "expand_copy")
def _expand(call: OpCall) -> Axes:
    source, result = call["self"], call.outputs[0]
    axes = call.axes(source)
    offset = result.ndim - source.ndim
    return [
        [
            axes[dim - offset] if dim >= offset and source.shape[dim - offset] == size else free(size)
            for dim, size in enumerate(result.shape)
        ]
    ]


@op_rule("repeat")
def _repeat(call: OpCall) -> Axes:
    source, result = call["self"], call.outputs[0]
    axes: list[Axis] = [()] * (result.ndim - source.ndim) + call.axes(source)
    return [[(*free(times), *axis) for times, axis in zip(call["repeats"], axes, strict=True)]]


@op_rule("repeat_interleave")
def _repeat_interleave(call: OpCall) -> Axes | None:
    if not isinstance(call["repeats"], int) or call["dim"] is None:
        return None
    axes = list(call.axes(call["self"]))
    axes[call["dim"]] = (*axes[call["dim"]], *free(call["repeats"]))
    return [axes]


@op_rule("select")
def _select(call: OpCall) -> Axes:
    axes = list(call.axes(call["self"]))
    # Some forwards take one channel for its shape alone.
    call.fix_if_used(call.outputs[0], axes.pop(call["dim"]), TAKEN_APART)
    return [axes]


@op_rule("unbind")
def _unbind(call: OpCall) -> Axes:
    axes = list(call.axes(call["self"]))
    fix(axes.pop(call["dim"]), TAKEN_APART)
    return [axes for _ in call.outputs]


@op_rule("slice")
def _slice(call: OpCall) -> Axes:
    source, dim, step = call["self"], call["dim"], call["step"]
    axes = list(call.axes(source))
    axis, size, result_size = axes[dim], source.shape[dim], call.outputs[0].shape[dim]
    end = size if call["end"] is None else min(call["end"], size)
    begin, stop, _ = slice(call["start"], end, step).indices(size)
    if begin < step and stop > size - step and step > 1 and size % step == 0:
        axes[dim], remainder = regroup(axis, (size // step, step))
        fix(remainder, TAKEN_APART)
        return [axes]
    if step > 1:
        axes[dim] = constant(result_size, INPUT) if is_fixed(axis) else free(result_size)
        return [axes]
    if 0 < stop < size:
        axis, _ = cut(axis, stop)
    if 0 < begin < stop:
        _, axis = cut(axis, begin)
    axes[dim] = axis if size_of(axis) == result_size else free(result_size)
    return [axes]


@op_rule("split", "split_with_sizes", "unsafe_split")
def _split(call: OpCall) -> Axes:
    dim = call["dim"] % call["self"].ndim
    axes = call.axes(call["self"])
    rest = axes[dim]
    results = []
    for output in call.outputs:
        size = output.shape[dim]
        piece, rest = cut(rest, size) if size < size_of(rest) else (rest, ())
        results.append([*axes[:dim], piece, *axes[dim + 1 :]])
    return results
