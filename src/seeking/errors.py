"""Errors and warnings of this library; their messages are written for users."""

import contextlib
from collections.abc import Iterable, Iterator

EXIT_SAVED = 75
"""Exit code of a run that was saved and stopped by SIGTERM or SIGHUP: EX_TEMPFAIL of sysexits.h, "try again later"."""

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C."""

INCOMPATIBLE_STATE_ERRORS = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)
"""Exceptions that ``load_state_dict`` can raise for the state of another model, optimizer or other object."""


class SeekingError(Exception):
    """Wrong usage or invalid input; the message names the cause and what to do."""


class NotContainedError(SeekingError):
    """The motivated model cannot contain the base model."""


class DamagedError(SeekingError):
    """A file is not as it was written. An error in reading it is not damage."""


class RunError(Exception):
    """A run failed after it had started."""


class DivergedError(RunError):
    """A loss or a gradient is NaN or infinite."""


class LoadingError(RunError):
    """The next batch cannot be loaded."""


class ProcessError(RunError):
    """Another process of the run has failed."""


class MatchWarning(UserWarning):
    """What a user should know of two models before training them."""


class RunWarning(UserWarning):
    """A problem that does not end the run."""


def add_detail(error: Exception, text: str) -> None:
    """Add to what an error says: to the message of this library's errors, as a note to others."""
    if isinstance(error, SeekingError | RunError):
        error.args = (f"{error}; {text}", *error.args[1:])
    else:
        error.add_note(text)


@contextlib.contextmanager
def naming(what: object) -> Iterator[None]:
    """Inside, what is wrong is told of this.

    Raises:
        SeekingError: from inside, with the name.
    """
    try:
        yield
    except SeekingError as error:
        raise SeekingError(f"{what}: {error}") from error


def unknown(kind: str, name: str, known: Iterable[str]) -> SeekingError:
    """The error for an unknown name, with the closest known names."""
    import difflib  # Not before signals are handled.

    known = sorted(known)
    folded = {each.casefold(): each for each in known}
    closest = [folded[each] for each in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]
    closest = [folded[name.casefold()]] if name.casefold() in folded else closest
    told = [repr(each) if {*" ,"} & {*each} else each for each in closest or known[:12]]
    if closest:
        hint = f"did you mean {' or '.join(told)}?"
    else:
        hint = f"known: {', '.join(told)}{', …' if len(known) > 12 else ''}"
    return SeekingError(f"unknown {kind} {name!r}; {hint}")
