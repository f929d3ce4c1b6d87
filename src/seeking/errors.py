"""What can go wrong by a user's doing, each with a message fit to be shown as it is."""

import difflib
from collections.abc import Iterable

MISFITS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, AssertionError)
"""What comes out of code that meets values of another kind than it is made for, such as those of another run."""


class SeekingError(Exception):
    """Wrong usage or bad input: names the thing, the values that disagree and what to do."""


class NotContainedError(SeekingError):
    """The motivated model cannot contain the base model."""


class RunError(Exception):
    """A run or a check that started properly has failed."""


class DivergedError(RunError):
    """A loss or a gradient stopped being finite."""


class LoadingError(RunError):
    """Training data stopped coming: a broken file, a worker that died, or whatever the data raise."""


class RunWarning(UserWarning):
    """Something has gone wrong that a run survives."""


def unknown(kind: str, name: str, known: Iterable[str]) -> SeekingError:
    """The error for a name that nothing answers to, with the nearest names that exist."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if nearest:
        hint = "did you mean " + " or ".join(nearest) + "?"
    else:
        hint = "known: " + ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return SeekingError(f"unknown {kind} {name!r}; {hint}")
