"""Names of the functions that a run was made with, to tell when it is resumed with others."""

import functools
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any


def qualified_name(function: Any) -> str:
    """The import path of a function, or of an object's class; of a partial function, of the whole one.

    Two lambdas of one function have one name.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, MethodType):
        return f"{qualified_name(function.__self__)}.{function.__name__}"
    named = function if isinstance(function, FunctionType | BuiltinFunctionType | type) else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def changed_names(saved: Any, now: Mapping[str, str]) -> list[str]:
    """A sentence for each function that is another one now.

    Args:
        saved: names by role, as a checkpoint has them; of older versions it has none.
        now: likewise.
    """
    if not isinstance(saved, Mapping):
        return []
    return [
        f"the {role} was {saved[role]} and is {name} now"
        for role, name in now.items()
        if isinstance(saved.get(role), str) and _path(saved[role], name) != _path(name, saved[role])
    ]


def _path(name: str, other: str) -> str:
    """A name, without its module if one of both was defined in the program that was run."""
    in_program = "__main__." in (name[:9], other[:9])
    return name.rpartition(".")[2] if in_program else name
