"""The errors and warnings of this library; the message of each can be shown to a user as it is."""

import difflib
from collections.abc import Iterable

INCOMPATIBLE_STATE_ERRORS = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)
"""What loading a state raises if it is that of other objects, such as another model or optimizer."""


class SeekingError(Exception):
    """Wrong usage or bad input: names the thing, the values that disagree and what to do."""


class NotContainedError(SeekingError):
    """The motivated model cannot contain the base model."""


class RunError(Exception):
    """A run or a check that started properly has failed."""


class DivergedError(RunError):
    """A loss or a gradient is NaN or infinite."""


class LoadingError(RunError):
    """The next training batch cannot be loaded."""


class RunWarning(UserWarning):
    """Something has gone wrong that a run survives."""


def unknown(kind: str, name: str, known: Iterable[str]) -> SeekingError:
    """The error for an unknown name, with the closest known names."""
    known = sorted(known)
    closest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if closest:
        hint = "did you mean " + " or ".join(closest) + "?"
    else:
        hint = "known: " + ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return SeekingError(f"unknown {kind} {name!r}; {hint}")
