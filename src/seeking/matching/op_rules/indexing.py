"""Operations that read or write entries by position."""

from torch import Tensor

from seeking.matching.axes import INPUT, UnalignedError, constant, fix, free, mark, size_of
from seeking.matching.op_rules.base import Axes, OpCall, op_rule

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


@op_rule(
    "index_put",
    "scatter",
    "scatter_add",
    "index_copy",
    "index_add",
    "masked_scatter",
    "_index_put_impl_",
    "select_scatter",
    "slice_scatter",
    "scatter_reduce",
)
def _write_into(call: OpCall) -> Axes:
    return [call.axes(call["self"])]


@op_rule("bucketize", "searchsorted")
def _search(call: OpCall) -> Axes:
    values, sequence = call["self"], call["boundaries" if "boundaries" in call else "sorted_sequence"]
    if isinstance(sequence, Tensor) and sequence.ndim:
        fix(call.axes(sequence)[-1], PICKED)
    return [call.axes(values) if isinstance(values, Tensor) else []]
