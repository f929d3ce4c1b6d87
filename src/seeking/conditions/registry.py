"""The registry of conditions by name."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from seeking.conditions.base import Condition


class Registered(NamedTuple):
    """A condition's class, and whether it wraps another condition."""

    make: Callable[..., Condition]
    wraps: bool


REGISTRY: dict[str, Registered] = {}
"""Conditions by their name in the grammar."""

ConditionType = TypeVar("ConditionType", bound=type[Condition])


def register(name: str, *, wraps: bool = False) -> Callable[[ConditionType], ConditionType]:
    """Register a condition under a name in the grammar.

    Args:
        name: the text ``NAME:1,2`` creates ``cls(1, 2)``; a parameter called ``seed`` gets a seed.
        wraps: the text ``NAME(CONDITION)`` creates ``cls(CONDITION)`` instead.
    """

    def decorate(cls: ConditionType) -> ConditionType:
        REGISTRY[name] = Registered(cls, wraps)
        return cls

    return decorate
