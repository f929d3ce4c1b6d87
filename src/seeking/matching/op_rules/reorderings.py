"""Operations that put the channels of a tensor in another order or place."""

from seeking.matching.axes import INPUT, MIXED, constant, cut, fix, regroup, unify
from seeking.matching.op_rules.base import Axes, OpCall, op_rule


@op_rule("glu")
def _glu(call: OpCall) -> Axes:
    dim = call["dim"]
    axes = list(call.axes(call["self"]))
    first, second = cut(axes[dim], call.outputs[0].shape[dim])
    unify(first, second)
    axes[dim] = first
    return [axes]


@op_rule("channel_shuffle")
def _channel_shuffle(call: OpCall) -> Axes:
    axes = list(call.axes(call["self"]))
    groups, channels = regroup(axes[1], (call["groups"], call["self"].shape[1] // call["groups"]))
    axes[1] = (*channels, *groups)
    return [axes]


@op_rule("flip", "roll", "rot90")
def _turn(call: OpCall) -> Axes:
    axes = call.axes(call["self"])
    for dim in call["dims"] or range(len(axes)):
        fix(axes[dim], MIXED)
    return [axes]


@op_rule("pixel_shuffle")
def _pixel_shuffle(call: OpCall) -> Axes:
    batch, channels, *_ = call.axes(call["self"])
    result = call.outputs[0]
    channels, pixels = regroup(channels, (result.shape[1], call["upscale_factor"] ** 2))
    fix(pixels, INPUT)
    return [[batch, channels, *(constant(size, INPUT) for size in result.shape[2:])]]


@op_rule("pixel_unshuffle")
def _pixel_unshuffle(call: OpCall) -> Axes:
    batch, channels, *_ = call.axes(call["self"])
    pixels = constant(call["downscale_factor"] ** 2, INPUT)
    return [[batch, (*channels, *pixels), *(constant(size, INPUT) for size in call.outputs[0].shape[2:])]]
