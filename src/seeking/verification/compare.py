"""How far apart two tensors, or the outputs of two models, are."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seeking.errors import SeekingError
from seeking.internals import Convolution, StatisticsNorm
from seeking.weights_map import Entry, in_double, is_real, named_leaves, named_tensors

Channels = Sequence[Sequence[list[int] | None]]
"""For each tensor of an output and each of its dimensions, the base's positions; None where they are not known."""


NUMBER_TOLERANCE = 1e-5
"""Greatest relative difference of numbers that count as equal: a model may have made them in float32."""


def relative_difference(base: Tensor, motivated: Tensor) -> float:
    """Greatest difference, relative to the greatest of the entries that differ, or to the median if that is more.

    Equal entries do not count, so that a constant, such as that of a mask, hides nothing.

    Args:
        base: real or complex, of any shape.
        motivated: the same.

    Returns:
        Infinity if the shapes differ or the difference is not finite.
    """
    if base.shape != motivated.shape:
        return float("inf")
    if base.is_complex() and motivated.is_complex():
        base, motivated = torch.view_as_real(base), torch.view_as_real(motivated)
    base, motivated = in_double(base), in_double(motivated)
    differs = base != motivated
    if not differs.any():
        return 0.0
    scale = max(float(base[differs].abs().max()), float(base.abs().median()))
    difference = float((base - motivated)[differs].abs().max()) / max(scale, 1e-30)
    return difference if math.isfinite(difference) else float("inf")


def is_constant(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor are equal; also where it has none, or none that can be told (meta, sparse)."""
    if tensor.is_meta or tensor.is_nested or tensor.layout is not torch.strided or not tensor.numel():
        return True
    first, last = (tensor[(position,) * tensor.ndim] for position in (0, -1))
    # A mode may count reductions, and this is none.
    return torch.equal(first, last) and torch.equal(tensor, first.expand_as(tensor))


def compare_outputs(base: Any, motivated: Any, channels: Channels = ()) -> tuple[float, str]:
    """Greatest relative difference of two models' outputs, and a sentence about it.

    Args:
        base: the output of the base: a tensor, or a mapping, dataclass, tuple or list of them. What has a name is
            compared in the order of the names.
        motivated: the output of the motivated model. Where it is wider, as hidden states are, its extra entries are
            expected to be zero, unless it is known which ones are the base's.
        channels: the base's positions in the motivated model's output, in the order of the names, too.

    Raises:
        SeekingError: the base's output holds no tensor of real or complex numbers.
    """
    whole, narrowed = ([*named_tensors(side).values()] for side in (base, motivated))
    if len(narrowed) == len(channels) == len(whole):
        narrowed = [
            _at_channels(tensor, other.shape, own) for tensor, other, own in zip(narrowed, whole, channels, strict=True)
        ]
    small, large = ([t for t in side if is_real(t)] for side in (whole, narrowed))
    if not small:
        raise SeekingError(
            f"the base model's output, a {type(base).__name__}, holds no tensor of real or complex numbers to compare; "
            "give a forward that returns one"
        )
    leaves = [[leaf for _, leaf in named_leaves(side)] for side in (base, motivated)]
    numbers = [[leaf for leaf in side if type(leaf) in (bool, int, float)] for side in leaves]
    for number, other in zip(*numbers, strict=False):
        if math.isnan(number) and math.isnan(other):
            continue
        if (difference := relative_difference(torch.tensor(number), torch.tensor(other))) > NUMBER_TOLERANCE:
            return (
                difference,
                f"a number in the outputs is {number:.6g} in the base, {other:.6g} in the motivated",
            )
    if len(small) == len(large):
        small, large = (list(side) for side in zip(*map(_comparable, small, large), strict=True))
    if [t.shape for t in small] != [t.shape for t in large]:
        return float("inf"), (
            f"the outputs have different shapes, {[list(t.shape) for t in small]} in the base "
            f"and {[list(t.shape) for t in large]} in the motivated model,"
        )
    if problem := _differing_integers(whole, narrowed):
        return float("inf"), problem
    differences = list(map(relative_difference, small, large))
    difference = max(differences)
    which = f" (tensor {differences.index(difference) + 1} of {len(differences)})" if len(differences) > 1 else ""
    return difference, f"the outputs differ by {difference:.1e}{which}"


def _differing_integers(base: Sequence[Tensor], motivated: Sequence[Tensor]) -> str:
    """A sentence on integers or booleans among the outputs that differ; empty if there are none."""
    if len(base) == len(motivated):
        for number, (small, large) in enumerate(zip(base, motivated, strict=True), 1):
            if not is_real(small) and small.shape == large.shape and not torch.equal(small, large.to(small.dtype)):
                return f"integers in the outputs differ (tensor {number} of {len(base)})"
    return ""


def _at_channels(tensor: Tensor, shape: Sequence[int], channels: Sequence[list[int] | None]) -> Tensor:
    """A tensor at the base's channels wherever it is wider than the base's and these are known."""
    if tensor.ndim == len(shape) == len(channels):
        for dim, own in enumerate(channels):
            if own is not None and len(own) == shape[dim] < tensor.shape[dim]:
                tensor = tensor.index_select(dim, torch.tensor(own, device=tensor.device))
    return tensor


def _comparable(base: Tensor, motivated: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs as they are if they are of one shape, else their sums and sums of squares over wider dimensions."""
    wider = [dim for dim in range(min(base.ndim, motivated.ndim)) if base.shape[dim] < motivated.shape[dim]]
    if base.ndim != motivated.ndim or not wider:
        return base, motivated
    base, motivated = (
        torch.stack([t.sum(wider), t.square().sum(wider)]) for t in (in_double(base), in_double(motivated))
    )
    return base, motivated


def at_base_channels(layer: nn.Module, base: Tensor, motivated: Tensor, weight: Entry) -> Tensor | None:
    """The output of a layer of the motivated model at the base's channels.

    Args:
        layer: of the base.
        base: the output of the base's layer.
        motivated: the output of the motivated model's layer.
        weight: the map's entry of the layer's weight.

    Returns:
        A tensor of the base's shape; None where the weight does not tell which channels are the base's.
    """
    transposed = isinstance(layer, nn.Embedding) or (isinstance(layer, Convolution) and layer.transposed)
    rows = 1 if transposed and len(weight.index) > 1 else 0
    dim = 1 if isinstance(layer, (Convolution, StatisticsNorm, nn.GroupNorm)) else -1
    sizes = [output.shape[dim] if output.ndim > 1 else 0 for output in (base, motivated)]
    if not weight.index or sizes != [weight.shape[rows], weight.target_shape[rows]]:
        return None
    mapped = motivated.index_select(dim, weight.index[rows].tensor(motivated.device))
    # Norms within each head see more heads, convolutions over channels more channels: later layers tell.
    return mapped if mapped.shape == base.shape else None
