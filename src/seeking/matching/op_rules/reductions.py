"""Operations that reduce or accumulate along dimensions."""

from torch import Tensor

from seeking.matching.axes import Axis, UnalignedError, is_fixed, size_of
from seeking.matching.op_rules.base import Axes, OpCall, broadcast, op_rule


@op_rule(
    "sum",
    "mean",
    "amax",
    "amin",
    "aminmax",
    "max",
    "min",
    "var",
    "std",
    "logsumexp",
    "prod",
    "argmax",
    "argmin",
    "any",
    "all",
    "var_mean",
    "std_mean",
    "nansum",
    "median",
    "count_nonzero",
    "linalg_vector_norm",
    "norm",
)
def _reduce(call: OpCall) -> Axes:
    if isinstance(call.get("other"), Tensor):
        return broadcast(call)
    source, result = call["self"], call.outputs[0]
    axes = call.axes(source)
    dim = call.get("dim")
    dims = [dim] if type(dim) is int else list(dim or range(source.ndim))
    reduced = {dim % source.ndim for dim in dims} if source.ndim else set()
    if result.ndim == source.ndim:
        kept: list[Axis] = [() if dim in reduced else axis for dim, axis in enumerate(axes)]
    else:
        kept = [axis for dim, axis in enumerate(axes) if dim not in reduced]
    if [size_of(axis) for axis in kept] != list(result.shape):
        raise UnalignedError
    return [kept for _ in call.outputs]


@op_rule("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
def _accumulate(call: OpCall) -> Axes | None:
    axes = call.axes(call["self"])
    if axes and not is_fixed(axes[call["dim"]]):
        return None
    return [axes for _ in call.outputs]
