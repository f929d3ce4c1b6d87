"""The types of options: a wrong one is refused where options are made, not where it is used.

What else is to be known of an option stands in its type: ``epochs: Changeable[int] = 20``.
"""

import functools
import numbers
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from seeking.errors import SeekingError, unknown

KINDS: dict[Any, tuple[type[Any], str]] = {
    bool: (bool, "True or False"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "text"),
}
"""By type hint, what is accepted, and its name."""

Value = TypeVar("Value")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")

CHANGEABLE, GIVEN_ANEW, HARMLESS, LOCATING, REPEATED = "changeable", "given anew", "harmless", "locating", "repeated"

Changeable = Annotated[Value, CHANGEABLE]
"""An option that may change when a run is resumed."""

GivenAnew = Annotated[Value, CHANGEABLE, GIVEN_ANEW]
"""An option that is not taken from the folder of a run that is resumed or analyzed, but given again."""

Harmless = Annotated[Value, HARMLESS]
"""An option of text that may be taken from the run folder of a stranger, since nothing is executed or loaded by it. So
may those that hold numbers or one of a few words; no others without a check of their own."""

Locating = Annotated[Value, LOCATING]
"""An option that says where the data are, or whether some are left out. It may change when a run is resumed whose data
have a fingerprint, which tells whether they are the same."""

Repeated = Annotated[Value, REPEATED]
"""An option that takes several values by being given several times."""

Ranges = Sequence[tuple[Callable[[float], bool], str, Sequence[str]]]
"""Whether a value is in range, what is said of one that is not, and the options; NaN is in no range."""


def remembered(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """``functools.cache`` for functions of a class, which mypy takes for not hashable."""
    return cast(Callable[Parameters, Result], functools.cache(function))


@remembered  # Python evaluates them anew each time, which takes longer than all that is checked by them.
def types_of(options: type[Any]) -> Mapping[str, Any]:
    """The types of the options of a dataclass by name."""
    return MappingProxyType(get_type_hints(options))


@remembered
def marked(options: type[Any], mark: str) -> frozenset[str]:
    """Names of the options of a dataclass whose types have this mark."""
    hints = get_type_hints(options, include_extras=True)
    return frozenset(name for name, hint in hints.items() if mark in getattr(hint, "__metadata__", ()))


def check_types(options: object, kind: type[Any], *, skip: frozenset[str] = frozenset()) -> None:
    """Check options that are truth values, numbers, text or one of a few words; others may be anything.

    Args:
        options: an instance of the dataclass, or of a subclass.
        kind: the dataclass whose fields are checked.
        skip: names of fields that are not.

    Raises:
        SeekingError: one of them is something else.
    """
    for name, hint in types_of(kind).items():
        value = getattr(options, name, None)
        hints = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        literals = [each for each in hints if get_origin(each) is Literal]
        if literals:
            if value is not None or NoneType not in hints:
                check_word(f"value of {name}", value, *literals)
            continue
        known = [each for each in hints if each in KINDS]
        if name in skip or not known or (value is None and NoneType in hints):
            continue
        is_kind = any(isinstance(value, KINDS[each][0]) for each in known)
        if not is_kind or (isinstance(value, bool) and bool not in known):
            expected = " or ".join([KINDS[each][1] for each in known] + ["None"] * (NoneType in hints))
            raise SeekingError(f"{name} is {value!r}, of type {type(value).__name__}; it must be {expected}")


def check_word(kind: str, value: object, *literals: Any) -> None:
    """Make sure that a value is one of the words of ``Literal`` types.

    Raises:
        SeekingError: it is not; the message names the closest words.
    """
    known = [word for literal in literals for word in get_args(literal)]
    if value not in known:
        raise unknown(kind, str(value), known)


def check_ranges(options: object, ranges: Ranges) -> None:
    """Check the numbers among options that are given.

    Raises:
        SeekingError: one is out of its range.
    """
    for inside, requirement, names in ranges:
        for name in names:
            value = getattr(options, name)
            if value is not None and not inside(value):
                raise SeekingError(f"{name} is {value}; it {requirement}")


def check_least(name: str, value: float | None, least: int = 1) -> None:
    """Make sure that a number, if it is given, is not below another one.

    Raises:
        SeekingError: it is.
    """
    if value is not None and value < least:
        raise SeekingError(f"{name} is {value}; it must be {least} or more")
