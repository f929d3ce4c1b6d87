"""Normalization."""

from torch import Tensor

from seeking.matching.axes import free, terminal
from seeking.matching.op_rules.base import Axes, OpCall, broadcast, op_rule, unify_or_fix


@op_rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "cudnn_batch_norm",
)
def _batch_norm(call: OpCall) -> Axes:
    axes = call.axes(call["input"])
    for tensor in call.inputs[1:]:
        if tensor.ndim == 1:
            unify_or_fix(axes[1], call.axes(tensor)[0])
    return [axes]


@op_rule("native_group_norm")
def _group_norm(call: OpCall) -> Axes:
    axes = call.axes(call["input"])
    groups = call["group"]
    if groups > 1:
        unify_or_fix(axes[1], (*free(groups), *free(call["C"] // groups)))
        if groups == call["C"] and len(spaces := terminal(axes[1])) == 1:
            spaces[0].single = True
    for tensor in (call["weight"], call["bias"]):
        if isinstance(tensor, Tensor):
            unify_or_fix(axes[1], call.axes(tensor)[0])
    return [axes]


# Weight and bias have the trailing dimensions of the input; lengths of weights are 1 where directions are longer.
op_rule("native_layer_norm", "_fused_rms_norm", "_weight_norm_interface")(broadcast)
