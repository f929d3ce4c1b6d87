"""Operations that sum products over a dimension."""

from seeking.matching.axes import INPUT, Axis, constant, fix, free, is_fixed, mark, size_of
from seeking.matching.op_rules.base import Axes, OpCall, op_rule, unify_or_fix


def _contract(left: Axis, right: Axis) -> None:
    unify_or_fix(left, right)
    mark((*left, *right), read=True)


def _matrix_product(left: list[Axis], right: list[Axis]) -> list[Axis]:
    _contract(left[1], right[0])
    return [left[0], right[1]]


def _batched_product(call: OpCall, left: list[Axis], right: list[Axis]) -> list[Axis]:
    unify_or_fix(left[0], right[0])
    _contract(left[2], right[1])
    call.scores = [left[2], right[1]]
    return [left[0], left[1], right[2]]


def _add(call: OpCall, product: list[Axis]) -> Axes:
    for axis, added in zip(product[::-1], call.axes(call["self"])[::-1], strict=False):
        if size_of(axis) == size_of(added):
            unify_or_fix(axis, added)
    return [product]


@op_rule("mm")
def _mm(call: OpCall) -> Axes:
    call.scores = []
    return [_matrix_product(call.axes(call["self"]), call.axes(call["mat2"]))]


@op_rule("addmm", "_sparse_addmm")
def _addmm(call: OpCall) -> Axes:
    call.scores = []
    return _add(call, _matrix_product(call.axes(call["mat1"]), call.axes(call["mat2"])))


@op_rule("bmm")
def _bmm(call: OpCall) -> Axes:
    return [_batched_product(call, call.axes(call["self"]), call.axes(call["mat2"]))]


@op_rule("baddbmm")
def _baddbmm(call: OpCall) -> Axes:
    return _add(call, _batched_product(call, call.axes(call["batch1"]), call.axes(call["batch2"])))


@op_rule("cdist", "_cdist_forward", "_euclidean_dist")
def _distance(call: OpCall) -> Axes:
    call.scores = []
    (*batch, rows, channels), (*_, columns, others) = map(call.axes, call.inputs[:2])
    _contract(channels, others)
    result: list[Axis] = [*batch, rows, columns]
    # Batch dimensions of the second may be more.
    missing = call.outputs[0].ndim - len(result)
    return [[*(free(size) for size in call.outputs[0].shape[:missing]), *result]]


@op_rule("_grouped_mm")
def _grouped_mm(call: OpCall) -> Axes | None:
    call.scores = []
    left, right = call.axes(call["self"]), call.axes(call["mat2"])
    if len(left) != 2 or len(right) != 3:
        return None
    _contract(left[1], right[1])
    return [[left[0], right[2]]]


@op_rule("mv")
def _mv(call: OpCall) -> Axes:
    call.scores = []
    rows, columns = call.axes(call["self"])
    _contract(columns, call.axes(call["vec"])[0])
    return [[rows]]


@op_rule("dot", "vdot")
def _dot(call: OpCall) -> Axes:
    call.scores = []
    _contract(call.axes(call["self"])[0], call.axes(call["tensor" if "tensor" in call else "other"])[0])
    return [[]]


@op_rule("linear")
def _linear(call: OpCall) -> Axes:
    call.scores = []
    axes = list(call.axes(call["input"]))
    outputs, inputs = call.axes(call["weight"])
    _contract(axes[-1], inputs)
    if call["bias"] is not None:
        unify_or_fix(outputs, call.axes(call["bias"])[0])
    return [[*axes[:-1], outputs]]


@op_rule("convolution", "_convolution", "convolution_overrideable")
def _convolution(call: OpCall) -> Axes:
    call.scores = []
    source, weight, groups = call["input"], call["weight"], call["groups"]
    batch, channels, *source_positions = call.axes(source)
    first, second, *kernel = call.axes(weight)
    for axis in kernel:
        fix(axis, "kernel size")
    inputs, outputs = (first, second) if call["transposed"] else (second, first)
    if groups > 1:
        # The first dimension of a grouped weight counts groups, then channels of a group.
        group = free(groups)
        unify_or_fix(first, (*group, *free(weight.shape[0] // groups)))
        if call["transposed"]:
            outputs = (*group, *second)
        else:
            inputs = (*group, *second)
    _contract(channels, inputs)
    if call["bias"] is not None:
        unify_or_fix(outputs, call.axes(call["bias"])[0])
    positions: list[Axis] = []
    for axis, before, after in zip(source_positions, source.shape[2:], call.outputs[0].shape[2:], strict=True):
        if before == after and not is_fixed(axis):
            # These are channels, convolved each with its neighbors.
            mark(axis, ordered=True, read=True)
            positions.append(axis)
        else:
            positions.append(constant(after, INPUT))
    return [[batch, outputs, *positions]]
