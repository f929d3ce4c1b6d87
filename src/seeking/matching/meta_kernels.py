"""Results without numbers: of operations that PyTorch cannot run on the meta device, or runs slowly there."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence


def _pack_on_meta(data: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """A packed sequence without numbers, and the batch sizes with theirs: the recurrent layers read them."""
    steps = torch.empty(data.shape[:2], device=lengths.device)
    packed = pack_padded_sequence(steps[..., None], lengths, batch_first)
    return data.new_empty(packed.data.shape[0], *data.shape[2:]), packed.batch_sizes


def _grouped_on_meta(left: Tensor, right: Tensor, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Tensor:
    """Products of runs of rows, each with a matrix of its own."""
    groups = [] if left.ndim + right.ndim == 5 else [len(right) if right.ndim == 3 else len(offs)]
    return left.new_empty(*groups, left.shape[-2], right.shape[-1])


META_KERNELS: dict[str, Callable[..., Any]] = {
    "aten::_pack_padded_sequence": _pack_on_meta,
    "aten::_grouped_mm": _grouped_on_meta,
}
"""Operations that PyTorch cannot run on the meta device."""


ELEMENTWISE = {
    f"aten::{name}"
    for name in ("mul", "add", "sub", "div", "neg", "rsqrt", "silu", "gelu", "relu", "sigmoid", "tanh", "exp", "cos")
} | {"aten::sin", "aten::_softmax", "aten::_safe_softmax", "aten::hardswish"}


def _product(left: Tensor, right: Tensor) -> list[Sequence[int]] | None:
    fits = left.shape[-1] == right.shape[-2] and left.shape[:-2] == right.shape[:-2]
    return [(*left.shape[:-1], right.shape[-1])] if fits else None


def _layer_norm(x: Tensor, normalized: Sequence[int], *rest: Any) -> list[Sequence[int]] | None:
    rank = len(normalized)
    kept = [*x.shape[: x.ndim - rank], *[1] * rank]
    return [x.shape, kept, kept] if [*x.shape[x.ndim - rank :]] == [*normalized] else None


def _batch_norm(x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *rest: Any) -> Any:
    sizes = {len(tensor) for tensor in (weight, bias, mean, variance) if tensor is not None}
    statistics = (x.shape[1] if training else 0,)
    return [x.shape, statistics, statistics] if x.ndim > 1 and sizes <= {x.shape[1]} else None


SHAPES: dict[str, Callable[..., list[Sequence[int]] | None]] = {
    "aten::mm": _product,
    "aten::addmm": lambda added, left, right: _product(left, right),
    "aten::bmm": _product,
    "aten::native_layer_norm": _layer_norm,
    "aten::native_batch_norm": _batch_norm,
}
"""The shapes of the results of common operations, from their arguments; None if these do not fit together."""


def fast_output(name: str, args: Sequence[Any], inputs: Sequence[Tensor]) -> Any:
    """The result of a common operation on floats of one dtype; None for other operations."""
    functional = name.removesuffix("_")
    if not inputs or (functional not in ELEMENTWISE and name not in SHAPES):
        return None
    first = inputs[0]
    if not all(tensor.is_meta and tensor.dtype == first.dtype for tensor in inputs):
        return None
    if not first.is_floating_point() or any(isinstance(value, complex) for value in args):
        return None
    if name in SHAPES:
        shapes = SHAPES[name](*args)
        if shapes is None:
            return None
        results = [torch.empty(shape, dtype=first.dtype, device="meta") for shape in shapes]
        return results[0] if len(results) == 1 else tuple(results)
    shape = first.shape if len(inputs) == 1 else torch.broadcast_shapes(*(tensor.shape for tensor in inputs))
    if functional != name:
        return first if shape == first.shape else None
    return torch.empty(shape, dtype=first.dtype, device="meta")
