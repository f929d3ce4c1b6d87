"""Weights that prove something, and models that hold them for a while."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import converted
from seeking.verification.compare import is_constant
from seeking.verification.extra import scales
from seeking.weights_map import identity, is_real, tensors, tensors_in


def random_weights(model: nn.Module, seed: int, times: float = 1.0) -> dict[str, Tensor]:
    """Weights that keep signals at their size, without the symmetry of an initialization; integers stay.

    Args:
        model: left as it is.
        seed: of a generator on the CPU.
        times: factor of the parameters.

    Returns:
        New tensors of the model's shapes and dtypes, by name; tied ones stay tied.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    drawn: dict[Hashable, Tensor] = {}
    for name, tensor in tensors(model).items():
        if identity(tensor) in drawn:
            continue
        leaf = name.rpartition(".")[2]
        noise = torch.randn(tensor.shape, generator=generator, device="cpu")
        if name in parameters and leaf.endswith("weight"):
            fan_in = max(1, tensor.shape[1:].numel())
            value = times * (noise * fan_in**-0.5 if tensor.ndim > 1 else noise.sigmoid() + 0.5)
        elif name in parameters or leaf == "running_mean":
            value = noise * 0.3 * (times if name in parameters else 1)
        elif leaf == "running_var":
            value = noise.sigmoid() + 0.5
        elif tensor.is_floating_point():
            # Zeros and infinities of a constant stay.
            value = tensor.detach() * (noise.sigmoid() + 0.5).to(tensor)
        else:
            value = tensor.detach().clone()
        drawn[identity(tensor)] = value.to(tensor)
    return {name: drawn[identity(tensor)] for name, tensor in tensors(model).items()}


def neutral_weights(motivated: nn.Module, extra: Iterable[str], scale: float) -> dict[str, Tensor]:
    """Parameters that contribute nothing: zeros, with this value for the scales of extra modules; buffers stay.

    With scales of zero, most blocks are the identity; with scales of one, those that scale their input (MetaFormers).
    Buffers are constants, such as masks, or statistics: no training makes them neutral.

    Args:
        motivated: left as it is.
        extra: names of its extra modules.
        scale: zero or one.
    """
    scaling = {identity(parameter) for name in extra if scale for parameter in scales(motivated.get_submodule(name))}
    parameters = {identity(parameter) for parameter in motivated.parameters()}
    filled: dict[Hashable, Tensor] = {}
    for tensor in tensors(motivated).values():
        key = identity(tensor)
        if key not in filled:
            stays = key not in parameters or not is_real(tensor)
            value = scale if key in scaling else 0.0
            filled[key] = tensor.clone() if stays else torch.full_like(tensor, value)
    return {name: filled[identity(tensor)] for name, tensor in tensors(motivated).items()}


def promoted(values: Any, dtype: torch.dtype) -> Any:
    """All real tensors in this dtype at least; tied ones stay tied."""
    cast: dict[Hashable, Tensor] = {}

    def promote(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        return cast.setdefault(identity(value), value.to(torch.promote_types(value.dtype, dtype)))

    return converted(values, promote)


def multiplied(values: Any, times: float) -> Any:
    """All real and complex tensors multiplied by a number, in new containers."""
    return converted(values, lambda tensor: tensor * times if is_real(tensor) else tensor)


def is_uniform(values: Any) -> bool:
    """Whether no tensor has two numbers that differ, though one has several: such as zeros or ones alone."""
    several = [tensor for tensor in tensors_in(values) if tensor.numel() > 1]
    return bool(several) and all(map(is_constant, several))


def varied(values: Any, seed: int) -> Any:
    """Random numbers from 0 to 1 in place of real ones, from 0 to the greatest in place of integers."""
    generator = torch.Generator().manual_seed(seed)

    def vary(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bool or tensor.is_nested or tensor.layout is not torch.strided or not tensor.numel():
            return tensor
        if not is_real(tensor):
            greatest = max(0, int(tensor.max()))
            return torch.randint(greatest + 1, tensor.shape, generator=generator).to(tensor)
        return torch.rand(tensor.shape, generator=generator).to(tensor)

    return converted(values, vary)


def hold(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Let a copy of a model hold other tensors; buffers that an earlier pass has made stay."""
    for name, tensor in tensors(model).items():
        if name in values:
            tensor.data = values[name]
