"""Conditions by the name that they have as text."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from seeking.conditions.base import Condition


class Registered(NamedTuple):
    """A condition's class, and whether it wraps another condition."""

    make: Callable[..., Condition]
    wraps: bool


REGISTRY: dict[str, Registered] = {}
"""Conditions by the name that they have as text."""

ConditionType = TypeVar("ConditionType", bound=type[Condition])


def register(name: str, *, wraps: bool = False) -> Callable[[ConditionType], ConditionType]:
    """Give a condition a name in the grammar.

    Args:
        name: ``NAME:1,2`` as text makes ``cls(1, 2)``; a parameter called ``seed`` is given a seed.
        wraps: ``NAME(CONDITION)`` as text makes ``cls(CONDITION)`` instead.
    """

    def decorate(cls: ConditionType) -> ConditionType:
        REGISTRY[name] = Registered(cls, wraps)
        return cls

    return decorate
