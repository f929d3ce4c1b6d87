"""Batches in new containers: what is taken out of one or put into it leaves the other alone."""

import copy
import operator
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

PLAIN = {int, float, bool, str, bytes, complex, type(None)}


def renewed(value: Any, convert: Callable[[Tensor], Tensor] | None = None) -> Any:
    """A batch in new containers; mappings, lists, tuples and dataclasses at any depth, other objects at the outside.

    Args:
        value: a batch, or a part of one; left as it is.
        convert: makes each tensor of the new batch; the tensors are the same ones if not given.

    Returns:
        A batch of the same types. What cannot be copied is the same object.
    """
    if type(value) in PLAIN or isinstance(value, nn.Module | type):
        return value
    if isinstance(value, Tensor):
        return convert(value) if convert else value
    if type(value) is dict:
        return {key: renewed(item, convert) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [renewed(item, convert) for item in value]
        if all(map(operator.is_, items, value)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if not hasattr(value, "__dict__") and not isinstance(value, list | Mapping):
        return value
    try:
        new = copy.copy(value)
        if isinstance(value, list):
            new[:] = [item if type(item) in PLAIN else renewed(item, convert) for item in value]
        elif isinstance(value, Mapping):
            for key, item in list(value.items()):
                new[key] = renewed(item, convert)
        elif isinstance(value, SimpleNamespace) or hasattr(value, "__dataclass_fields__"):
            vars(new).update({key: renewed(item, convert) for key, item in vars(value).items()})
    except Exception:  # Read-only mappings, streams, locks.
        return value
    return new
