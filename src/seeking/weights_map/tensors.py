"""The tensors of a model, and those in a batch or an output."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of a model by name, tied and non-persistent ones included."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in a batch or an output: in mappings of any kind, dataclasses, tuples and lists, at any depth."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        items = list(value.values())
    else:
        items = list(value) if isinstance(value, (tuple, list)) else []
    if not items and dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = list(vars(value).values())
    return [tensor for item in items for tensor in tensors_in(item)]
