"""Operations that put tensors together along a dimension."""

from seeking.matching.axes import INPUT, STACKED, concatenate, constant, free, is_fixed
from seeking.matching.op_rules.base import Axes, OpCall, op_rule, unify_or_fix


@op_rule("cat")
def _cat(call: OpCall) -> Axes:
    result = call.outputs[0]
    dim = call["dim"] % result.ndim
    # An empty tensor of one dimension may be concatenated with tensors of any shape.
    tensors = [tensor for tensor in call.inputs if tensor.ndim == result.ndim]
    parts = [call.axes(tensor) for tensor in [t for t in tensors if t.shape[dim]] or tensors]
    axes = list(parts[0])
    for part in parts[1:]:
        for place in range(result.ndim):
            if place != dim:
                unify_or_fix(axes[place], part[place])
    axes[dim] = concatenate([part[dim] for part in parts])
    return [axes]


@op_rule("stack")
def _stack(call: OpCall) -> Axes:
    parts = [call.axes(tensor) for tensor in call.inputs]
    for part in parts[1:]:
        for first, axis in zip(parts[0], part, strict=True):
            unify_or_fix(first, axis)
    axes = list(parts[0])
    axes.insert(call["dim"] % call.outputs[0].ndim, constant(len(parts), STACKED))
    return [axes]


@op_rule("constant_pad_nd", "reflection_pad2d", "replication_pad2d", "reflection_pad1d")
def _pad(call: OpCall) -> Axes:
    source = call["self"]
    padding = call["pad" if "pad" in call else "padding"]
    axes = list(call.axes(source))
    for place in range(len(padding) // 2):
        dim = source.ndim - 1 - place
        before, after = padding[2 * place : 2 * place + 2]
        if not before and not after:
            continue
        if is_fixed(axes[dim]) or before < 0 or after < 0:
            axes[dim] = constant(call.outputs[0].shape[dim], INPUT)
        else:
            axes[dim] = concatenate([*([free(before)] if before else []), axes[dim], *([free(after)] if after else [])])
    return [axes]
