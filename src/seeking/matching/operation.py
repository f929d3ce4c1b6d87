"""What PyTorch declares of an operation."""

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seeking.internals import operation_arguments, takes_functions

FOLLOWED = {"flex_attention"}
"""Operations that take functions, of which there are rules."""


@dataclass(frozen=True)
class Operation:
    """Name, parameters and kind of an operation.

    Attributes:
        name: with namespace, without overload.
        parameters: position and default of each, by name.
        pointwise: whether it is elementwise.
    """

    name: str
    parameters: dict[str, tuple[int, Any]]
    pointwise: bool

    @property
    def short_name(self) -> str:
        """The name without ``aten::``."""
        return self.name.removeprefix("aten::")


def short_name(func: Any) -> str:
    """The name of an operation as ``__torch_dispatch__`` gets it, without overload and without ``aten::``."""
    name: str = func.name()
    return name.removeprefix("aten::").partition(".")[0]


@functools.cache
def operation_of(func: Any) -> Operation:
    """What is declared of an operation as ``__torch_dispatch__`` gets it.

    Raises:
        NotImplementedError: it takes functions, such as branches, which are not followed.
    """
    if takes_functions(func):
        return _taking_functions(func)
    name = func.name().partition(".")[0]
    arguments = operation_arguments(func)
    variants = [func]
    if name.startswith("aten::") and name.endswith("_"):
        # Some operations in place lack the tag that the same operation out of place has.
        functional = getattr(torch.ops.aten, name.removeprefix("aten::").removesuffix("_"), None)
        variants += [getattr(functional, overload) for overload in (functional.overloads() if functional else ())]
    return Operation(
        name,
        {
            argument.name: (position, argument.default_value if argument.has_default_value() else None)
            for position, argument in enumerate(arguments)
        },
        any(torch.Tag.pointwise in variant.tags for variant in variants),
    )


def _taking_functions(func: Any) -> Operation:
    if func.name() not in FOLLOWED:
        raise NotImplementedError(f"{func.name()} takes functions, which are not followed")
    _, *parameters = inspect.signature(type(func).__call__).parameters
    return Operation(f"aten::{func.name()}", {name: (place, None) for place, name in enumerate(parameters)}, False)


def flat_tensors(*values: Any) -> list[Tensor]:
    """The tensors among an operation's arguments or results, which hold at most lists of tensors."""
    flat = []
    for value in values:
        if isinstance(value, Tensor):
            flat.append(value)
        elif isinstance(value, (list, tuple)):
            flat.extend(item for item in value if isinstance(item, Tensor))
    return flat
