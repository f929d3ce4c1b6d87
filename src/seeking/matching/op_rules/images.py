"""Operations on the positions of images and sequences: pooling, resizing, windows."""

import math

from seeking.matching.axes import INPUT, constant, fix, regroup
from seeking.matching.op_rules.base import Axes, OpCall, op_rule, same_where_sizes_stay

op_rule(
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_trilinear3d",
    "upsample_bicubic2d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "grid_sampler_2d",
    "grid_sampler_3d",
)(same_where_sizes_stay)


@op_rule("im2col")
def _im2col(call: OpCall) -> Axes:
    batch, channels, *_ = call.axes(call["self"])
    window = constant(math.prod(call["kernel_size"]), "kernel size")
    return [[batch, (*channels, *window), constant(call.outputs[0].shape[-1], INPUT)]]


@op_rule("col2im")
def _col2im(call: OpCall) -> Axes:
    batch, channels, *_ = call.axes(call["self"])
    result = call.outputs[0]
    channels, window = regroup(channels, (result.shape[1], math.prod(call["kernel_size"])))
    fix(window, "kernel size")
    return [[batch, channels, *(constant(size, INPUT) for size in result.shape[2:])]]


@op_rule("unfold")
def _unfold(call: OpCall) -> Axes:
    result = call.outputs[0]
    dim = call["dimension"] % call["self"].ndim
    axes = list(call.axes(call["self"]))
    axes[dim] = constant(result.shape[dim], INPUT)
    return [[*axes, constant(result.shape[-1], "kernel size")]]
