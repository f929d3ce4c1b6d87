"""The tensors of a model, and those in a batch or an output."""

import dataclasses
import itertools
import re
from collections.abc import Hashable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from seeking.internals import storage_id

COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
"""Layouts of sparse tensors of which only the values can be asked for NaN."""


def identity(tensor: Tensor) -> Hashable:
    """What two tensors have in common if they are tied: one storage, and one place, shape and strides in it.

    Valid as long as the tensor lives and is not resized.
    """
    storage = storage_id(tensor)
    if storage is None:
        return id(tensor)
    return storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of a model by name, tied and non-persistent ones included."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def owners(name: str) -> list[str]:
    """Names of the modules that a tensor or a module is in, by its name, the outermost first; the root's is empty."""
    return ["", *itertools.accumulate(name.split(".")[:-1], "{}.{}".format)]


def is_real(tensor: Tensor) -> bool:
    """Whether a tensor holds real or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()


def in_double(tensor: Tensor) -> Tensor:
    """A tensor of real numbers in float64, on the CPU if its device does not have that."""
    return (tensor if has_double(tensor.device) else tensor.cpu()).double()


def has_double(device: torch.device) -> bool:
    """Whether a device has float64; Apple's GPUs do not."""
    return device.type != "mps"


def is_packed(tensor: Tensor) -> bool:
    """Whether a tensor stands for others of other types, as quantized ones do, so that no part of it can be written."""
    # Sharded ones are made of others, too, but hold their numbers.
    return hasattr(tensor, "__tensor_flatten__") and not hasattr(tensor, "device_mesh")


def leaves_in(value: Any) -> list[Any]:
    """Every tensor, number and other object in mappings of any kind, dataclasses, tuples and lists, at any depth."""
    items = _items_of(value)
    return [value] if items is None else [leaf for _, item in items for leaf in leaves_in(item)]


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in a batch or an output; see ``leaves_in``."""
    return [leaf for leaf in leaves_in(value) if isinstance(leaf, Tensor)]


def has_nan(value: Any) -> bool:
    """Whether there is NaN in a tensor, perhaps sparse or nested, or in a batch, an output or records of outputs."""

    def numbers(tensor: Tensor) -> Tensor:
        if tensor.is_nested:
            return tensor.to_padded_tensor(0.0)
        return tensor.values() if tensor.layout in COMPRESSED else tensor

    return any(bool(numbers(tensor).isnan().any()) for tensor in tensors_in(value) if is_real(tensor))


Name = tuple[Any, ...]
"""Keys and positions that lead to a part of an output."""


def named_leaves(value: Any, name: Name = ()) -> list[tuple[Name, Any]]:
    """As ``leaves_in``, with names, and in their order: whichever was put in first."""
    items = _items_of(value)
    if items is None:
        return [(name, value)]
    items.sort(key=lambda item: _place_of(item[0]))
    return [leaf for key, item in items for leaf in named_leaves(item, (*name, key))]


def named_tensors(value: Any) -> dict[Name, Tensor]:
    """Every tensor in an output, by name and in the order of the names."""
    return {name: leaf for name, leaf in named_leaves(value) if isinstance(leaf, Tensor)}


def _items_of(value: Any) -> list[tuple[Any, Any]] | None:
    """What a container holds, by key or position; None for what is no container."""
    if isinstance(value, Tensor):
        return None
    items: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, (tuple, list)):
        items = list(enumerate(value))
    has_fields = isinstance(value, SimpleNamespace) or dataclasses.is_dataclass(value)
    if not items and has_fields and not isinstance(value, type):
        return list(vars(value).items())
    return items if isinstance(value, (Mapping, tuple, list)) else None


def _place_of(name: Any) -> tuple[int, Any]:
    """What names are sorted by: numbers, also those in words, by size; what has no order stays where it is."""
    if isinstance(name, str):
        return 1, [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in re.split(r"(\d+)", name)]
    return (0, name) if isinstance(name, int | float) else (2, 0)
