"""Motivated training in the loops of other libraries, a file for each; nothing else imports them."""

from seeking.conditions import Condition, ConsecutiveDecrease, parse
from seeking.errors import SeekingError
from seeking.pair import Pair


def missing(package: str, extra: str) -> ModuleNotFoundError:
    """The error for a library that is not installed, with the command that installs it."""
    return ModuleNotFoundError(
        f"seeking.integrations.{extra} needs {package}, which is not installed; run, in the folder of seeking: "
        f"pip install '.[{extra}]'",
        name=package,
    )


def make_condition(given: Condition | str | None) -> Condition:
    """A condition, from itself or its text; the paper's if none is given.

    Raises:
        SeekingError: the text cannot be parsed.
    """
    if given is None:
        return ConsecutiveDecrease(2)
    return parse(given) if isinstance(given, str) else given


def check_pair(pair: object, user: str) -> None:
    """Make sure that a pair is one.

    Raises:
        SeekingError: it is something else, such as a model.
    """
    if not isinstance(pair, Pair):
        raise SeekingError(f"{user} takes a pair, not a {type(pair).__name__}; give it seeking.Pair(base, motivated)")
