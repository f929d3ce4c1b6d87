"""Operations on packed sequences."""

from seeking.matching.axes import INPUT, constant
from seeking.matching.op_rules.base import Axes, OpCall, op_rule


@op_rule("_pack_padded_sequence")
def _pack(call: OpCall) -> Axes:
    packed, batch_sizes = call.outputs
    steps = constant(packed.shape[0], INPUT)
    return [[steps, *call.axes(call["input"])[2:]], [constant(size, INPUT) for size in batch_sizes.shape]]
