"""The tensors of a model, and those in a batch or an output."""

import dataclasses
import re
from collections.abc import Hashable, Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from seeking.internals import storage_id


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


def is_real(tensor: Tensor) -> bool:
    """Whether a tensor holds real or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()


def leaves_in(value: Any, *, by_name: bool = False) -> list[Any]:
    """Every tensor, number and other object in mappings of any kind, dataclasses, tuples and lists, at any depth.

    Args:
        value: a batch or an output.
        by_name: in the order of the names in mappings and dataclasses, whichever were put in first.
    """
    if isinstance(value, Tensor):
        return [value]
    named: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        named = list(value.items())
    elif isinstance(value, (tuple, list)):
        named = [(None, item) for item in value]
    has_fields = isinstance(value, SimpleNamespace) or dataclasses.is_dataclass(value)
    if not named and has_fields and not isinstance(value, type):
        named = list(vars(value).items())
    elif not isinstance(value, (Mapping, tuple, list)):
        return [value]
    if by_name:
        named.sort(key=lambda item: _place_of(item[0]))
    return [leaf for _, item in named for leaf in leaves_in(item, by_name=by_name)]


def tensors_in(value: Any, *, by_name: bool = False) -> list[Tensor]:
    """Every tensor in a batch or an output; see ``leaves_in``."""
    return [leaf for leaf in leaves_in(value, by_name=by_name) if isinstance(leaf, Tensor)]


def _place_of(name: Any) -> tuple[int, Any]:
    """What names are sorted by: numbers, also those in words, by size; what has no order stays where it is."""
    if isinstance(name, str):
        return 1, [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in re.split(r"(\d+)", name)]
    return (0, name) if isinstance(name, int | float) else (2, 0)
