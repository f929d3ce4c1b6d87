"""The tensors of a model, and those in a batch or an output."""

import dataclasses
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


def leaves_in(value: Any) -> list[Any]:
    """Every tensor, number and other object in mappings of any kind, dataclasses, tuples and lists, at any depth."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        items = list(value.values())
    else:
        items = list(value) if isinstance(value, (tuple, list)) else []
    has_fields = isinstance(value, SimpleNamespace) or dataclasses.is_dataclass(value)
    if not items and has_fields and not isinstance(value, type):
        items = list(vars(value).values())
    elif not isinstance(value, (Mapping, tuple, list)):
        return [value]
    return [leaf for item in items for leaf in leaves_in(item)]


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in a batch or an output; see ``leaves_in``."""
    return [leaf for leaf in leaves_in(value) if isinstance(leaf, Tensor)]
