"""Fourier transforms: each entry of the result is of all entries."""

from seeking.matching.axes import constant, fix
from seeking.matching.op_rules.base import Axes, OpCall, op_rule

TRANSFORMED = "length of a Fourier transform"


@op_rule("_fft_r2c", "_fft_c2c", "_fft_c2r")
def _transform(call: OpCall) -> Axes:
    axes = list(call.axes(call["self"]))
    for dim in call["dim"]:
        fix(axes[dim], TRANSFORMED)
        axes[dim] = constant(call.outputs[0].shape[dim], TRANSFORMED)
    return [axes]
