"""Operations that reduce or accumulate along dimensions."""

from seeking.matching.axes import MIXED, Axis, UnalignedError, fix, mark, size_of, terminal
from seeking.matching.op_rules.base import Axes, OpCall, op_rule


@op_rule(
    "sum",
    "mean",
    "var",
    "std",
    "logsumexp",
    "prod",
    "any",
    "all",
    "var_mean",
    "std_mean",
    "nansum",
    "count_nonzero",
    "linalg_vector_norm",
    "norm",
)
def reduce(call: OpCall) -> Axes:
    """Axes of results without the dimensions that are reduced.

    Raises:
        UnalignedError: the shape of a result is another one.
    """
    source, result = call["self"], call.outputs[0]
    axes = call.axes(source)
    reduced = {dim % source.ndim for dim in call.dims()} if source.ndim else set()
    if result.ndim == source.ndim:
        kept: list[Axis] = [() if dim in reduced else axis for dim, axis in enumerate(axes)]
    else:
        kept = [axis for dim, axis in enumerate(axes) if dim not in reduced]
    if [size_of(axis) for axis in kept] != list(result.shape):
        raise UnalignedError
    return [kept for _ in call.outputs]


@op_rule("cumsum", "cumprod", "logcumsumexp")
def _accumulate(call: OpCall) -> Axes:
    axes = call.axes(call["self"])
    if axes:
        axis = axes[call["dim"]]
        # What comes before an entry must be the base's.
        if any(space.segments for space in terminal(axis)) or len(terminal(axis)) > 1:
            fix(axis, MIXED)
        mark(axis, ordered=True)
    return [axes for _ in call.outputs]
