"""States of objects as JSON and tensors: no code in them, none run to read them.

Anything made of tensors, arrays, numbers, text, lists, tuples and mappings goes in and comes out as it was. JSON takes
all but the tensors; what JSON has no word for stands in an object with one key that begins with ``$``.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seeking.errors import SeekingError
from seeking.internals import sparse_parts

DTYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def pack(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split a state into JSON and tensors.

    Args:
        value: the state.

    Returns:
        What is JSON-serializable, with names in place of tensors, and the tensors by name: not copied, and one that
        occurs in several places once.

    Raises:
        SeekingError: something of another type is in it; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    known: dict[tuple[Any, ...], str] = {}

    def named(tensor: Tensor, path: str) -> str:
        tensor = tensor.detach()
        key: tuple[Any, ...] = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        key += (tensor.is_conj(), tensor.is_neg())
        if key not in known or not tensor.numel():  # All empty tensors have one address.
            name = path.lstrip("/")
            while name in tensors:  # Where a name holds a slash.
                name += "'"
            known[key], tensors[name] = name, tensor
        return known[key]

    def packed(value: Any, path: str) -> Any:
        if value is None or isinstance(value, bool | str) or type(value) is int:
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
        if isinstance(value, np.inexact):
            value = np.asarray(value)  # Comes back as an array without dimensions, of the same dtype.
        if isinstance(value, Tensor) and value.layout is torch.strided:
            return {"$tensor": named(value, path)}
        if isinstance(value, Tensor) and value.layout is torch.sparse_coo:
            indices, values = sparse_parts(value)
            parts = [named(indices, f"{path}/indices"), named(values, f"{path}/values")]
            return {"$sparse": [*parts, [*value.shape], value.is_coalesced()]}
        if isinstance(value, np.ndarray):
            with contextlib.suppress(TypeError, ValueError):  # An array that torch cannot take is refused below.
                return {"$array": named(torch.from_numpy(value), path)}
        if isinstance(value, torch.dtype):
            return {"$dtype": str(value).removeprefix("torch.")}
        if isinstance(value, np.integer | np.bool_):
            return value.item()
        if isinstance(value, list | tuple) and type(value) in (list, tuple, torch.Size):
            whole = all(type(item) is int for item in value)  # The states of generators are thousands of them.
            items = [*value] if whole else [packed(item, f"{path}/{number}") for number, item in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        if isinstance(value, Mapping):
            plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
            if plain and not isinstance(value, Counter):
                return {key: packed(item, f"{path}/{key}") for key, item in value.items()}
            pairs = [[packed(key, path), packed(item, f"{path}/{key}")] for key, item in value.items()]
            return {"$counter" if isinstance(value, Counter) else "$mapping": pairs}
        raise SeekingError(
            f"a checkpoint cannot hold {path.lstrip('/')}, a {type(value).__module__}.{type(value).__qualname__}; "
            "it holds tensors, numbers, text, lists and mappings"
        )

    return packed(value, ""), tensors


def unpack(content: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Join a state again; the inverse of ``pack``.

    Raises:
        SeekingError: this is not what ``pack`` gives.
    """
    try:
        return _unpacked(content, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise SeekingError(f"not a packed state ({type(error).__name__}: {error})") from error


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if len(value) != 1 or not tag.startswith("$"):
        return {key: _unpacked(item, tensors) for key, item in value.items()}
    inside = value[tag]
    if tag == "$tensor":
        return tensors[inside]
    if tag == "$array":
        return tensors[inside].numpy()
    if tag == "$sparse":
        indices, values, size, coalesced = inside
        parts = tensors[indices], tensors[values]
        return torch.sparse_coo_tensor(*parts, size, is_coalesced=coalesced, check_invariants=True)
    if tag == "$float":
        return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[inside]
    if tag == "$dtype":
        return DTYPES[inside]
    items = _unpacked(inside, tensors)
    if tag == "$tuple":
        return tuple(items)
    if tag == "$mapping":
        return dict(items)
    if tag == "$counter":
        return Counter(dict(items))
    raise ValueError(f"unknown {tag}")
