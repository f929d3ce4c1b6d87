"""Softmax and attention."""

from seeking.matching.axes import fix, free, size_of
from seeking.matching.op_rules.base import Axes, OpCall, op_rule, unify_or_fix


@op_rule("_softmax", "_log_softmax", "softmax", "_safe_softmax", "log_softmax")
def _softmax(call: OpCall) -> Axes:
    axes = call.axes(call["self"])
    if axes:
        fix(axes[call["dim"]], "number of shares in a softmax")
    if call.scaled:
        for axis in call.scores:
            call.fix_head(axis, call.scaled)
    return [axes]


@op_rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "flex_attention",
)
def _scaled_dot_product_attention(call: OpCall) -> Axes:
    query, key, value = (call.axes(call[name]) for name in ("query", "key", "value"))
    unify_or_fix(query[-1], key[-1])
    scale = call.get("scale") or size_of(query[-1]) ** -0.5
    if scale != 1 or call.scaled:
        for axis in (query[-1], key[-1]):
            call.fix_head(axis, {scale, *call.scaled})
    for shared in (key, value):
        # In grouped-query attention, several heads of queries share one of keys and values.
        group = size_of(query[1]) // size_of(shared[1])
        unify_or_fix(query[1], (*shared[1], *free(group)))
    return [[*query[:-1], value[-1]], *([free(size) for size in output.shape] for output in call.outputs[1:])]
