"""Operations that choose among entries: extra ones, though zero, compete with the others."""

import functools

from torch import Tensor

from seeking.matching.axes import fix
from seeking.matching.op_rules.base import Axes, OpCall, broadcast, op_rule, same_where_sizes_stay
from seeking.matching.op_rules.indexing import pick
from seeking.matching.op_rules.reductions import reduce

COMPETING = "number of entries that compete in"
"""Why a space is fixed, with the operation's name after it."""

NONNEGATIVE = {"abs", "relu", "linalg_vector_norm", "square"}


def _compete(name: str, call: OpCall, dims: list[int]) -> None:
    tensor = call.inputs[0]
    # Zeros do not win over these.
    if name in ("max", "amax") and call.producer(tensor).removesuffix("_") in NONNEGATIVE:
        return
    for dim in dims:
        fix(call.axes(tensor)[dim], f"{COMPETING} {name}")


def _extremum(name: str, call: OpCall) -> Axes | None:
    if isinstance(call.get("other"), Tensor):
        return broadcast(call)
    if call.inputs[0].ndim:
        _compete(name, call, call.dims())
    return reduce(call)


def _order(name: str, call: OpCall) -> Axes | None:
    if call.inputs[0].ndim:
        _compete(name, call, [call["dim"]])
    return pick(call)


def _accumulate(name: str, call: OpCall) -> Axes:
    axes = call.axes(call["self"])
    if axes:
        _compete(name, call, [call["dim"]])
    return [axes for _ in call.outputs]


def _pool(name: str, call: OpCall) -> Axes | None:
    rank = int(name.partition("d_")[0][-1] if "d_" in name else name[-2])
    _compete(name, call, [-1 - dim for dim in range(rank)])
    return same_where_sizes_stay(call)


EXTREMA = ("max", "min", "amax", "amin", "aminmax", "argmax", "argmin", "median", "nanmedian", "mode", "kthvalue")
ORDERS = ("sort", "topk")
RUNNING_EXTREMA = ("cummax", "cummin", "_cummax_helper", "_cummin_helper")

for _names, _rule in (
    (EXTREMA, _extremum),
    (ORDERS, _order),
    (RUNNING_EXTREMA, _accumulate),
    (("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d"), _pool),
):
    for _name in _names:
        op_rule(_name)(functools.partial(_rule, _name))
