"""Operations that read or write entries by position."""

from collections.abc import Sequence

import torch
from torch import Tensor

from seeking.matching.axes import INPUT, Axis, UnalignedError, constant, fix, free, mark, size_of
from seeking.matching.op_rules.base import Axes, OpCall, op_rule, unify_or_fix

PICKED = "number of entries that are picked by position"


@op_rule("embedding")
def _embedding(call: OpCall) -> Axes:
    rows, columns = call.axes(call["weight"])
    mark(rows, ordered=True, read=True)
    return [[*call.axes(call["indices"]), columns]]


@op_rule("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(call: OpCall) -> Axes:
    rows, columns = call.axes(call["weight"])
    mark(rows, ordered=True, read=True)
    bags, *extra = call.outputs
    return [[constant(bags.shape[0], INPUT), columns], *([free(size) for size in output.shape] for output in extra)]


@op_rule("index", "_unsafe_index")
def _index(call: OpCall) -> Axes:
    source, result = call["self"], call.outputs[0]
    axes = call.axes(source)
    indexed = [dim for dim, positions in enumerate(call["indices"]) if positions is not None]
    if not indexed:
        return [axes]
    for dim in indexed:
        mark(axes[dim], ordered=True, read=True)
    rank = result.ndim - (source.ndim - len(indexed))
    adjacent = indexed == list(range(indexed[0], indexed[-1] + 1))
    place = indexed[0] if adjacent else 0
    kept = [axis for dim, axis in enumerate(axes) if dim not in indexed]
    new = [constant(size, INPUT) for size in result.shape[place : place + rank]]
    result_axes = [*kept[:place], *new, *kept[place:]]
    if [size_of(axis) for axis in result_axes] != list(result.shape):
        # A mask selects as many as its values say.
        raise UnalignedError
    return [result_axes]


@op_rule("index_select", "gather")
def pick(call: OpCall) -> Axes:
    """Axes of results that hold entries from positions along a dimension.

    Raises:
        UnalignedError: the shape of a result is another one.
    """
    source, result = call["self"], call.outputs[0]
    axes = list(call.axes(source))
    if axes:
        dim = call["dim"] % source.ndim
        mark(axes[dim], ordered=True, read=True)
        axes[dim] = constant(result.shape[dim], PICKED)
    if [size_of(axis) for axis in axes] != list(result.shape):
        raise UnalignedError
    return [axes for _ in call.outputs]


@op_rule("index_put", "_index_put_impl_")
def _put(call: OpCall) -> Axes:
    target, values = call["self"], call["values"]
    axes = call.axes(target)
    indexed: list[int] = []
    rank, dim = 0, 0
    for positions in call["indices"]:
        if positions is not None:
            # A mask stands for as many dimensions as it has.
            is_mask = positions.dtype in (torch.bool, torch.uint8)
            width = positions.ndim if is_mask else 1
            indexed += range(dim, dim + width)
            rank = max(rank, 1 if is_mask else positions.ndim)
            dim += width
        else:
            dim += 1
    for dim in indexed:
        mark(axes[dim], ordered=True)
    kept: list[Axis | None] = [axis for dim, axis in enumerate(axes) if dim not in indexed]
    place = indexed[0] if indexed and indexed == list(range(indexed[0], indexed[-1] + 1)) else 0
    _receive([*kept[:place], *[None] * rank, *kept[place:]], call.axes(values))
    return [axes]


@op_rule("scatter", "scatter_add", "scatter_reduce", "index_copy", "index_add", "index_reduce")
def _put_along(call: OpCall) -> Axes:
    axes = call.axes(call["self"])
    values = next((call[name] for name in ("src", "source") if name in call), None)
    if isinstance(values, Tensor) and values.ndim == len(axes):
        dim = call["dim"] % max(len(axes), 1)
        _receive([None if place == dim else axis for place, axis in enumerate(axes)], call.axes(values))
    return [axes]


@op_rule("masked_scatter")
def _put_in_order(call: OpCall) -> Axes:
    # Values are taken in the order of their places, as a row for each position where the mask is that of rows.
    axes = call.axes(call["self"])
    _receive(axes[-1:], call.axes(call["source"]))
    return [axes]


@op_rule("select_scatter", "slice_scatter")
def _write_into(call: OpCall) -> Axes:
    return [call.axes(call["self"])]


def _receive(places: Sequence[Axis | None], values: Sequence[Axis]) -> None:
    """Values are broadcast against the places that they are written to; None is a dimension of positions."""
    for place, axis in zip(places[::-1], values[::-1], strict=False):
        if place is not None and size_of(place) == size_of(axis):
            unify_or_fix(place, axis)


@op_rule("bucketize", "searchsorted")
def _search(call: OpCall) -> Axes:
    values, sequence = call["self"], call["boundaries" if "boundaries" in call else "sorted_sequence"]
    if isinstance(sequence, Tensor) and sequence.ndim:
        fix(call.axes(sequence)[-1], PICKED)
    return [call.axes(values) if isinstance(values, Tensor) else []]
