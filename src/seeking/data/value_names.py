"""The values of a column as names, of classes and of categories alike.

Numbers go by their value: ``1``, ``1.0``, ``+1`` and ``1e0`` are all ``1``. A number with a leading zero, such as
``007``, is a name, as all other text is: codes are written so. Where a column holds booleans alone, ``true`` and
``TRUE`` are ``True``.
"""

import re
import unicodedata
from collections.abc import Iterable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation

from seeking.data.folders import shown

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"-?\d+", re.ASCII)
CODE = re.compile(r"[+-]?0\d.*", re.ASCII | re.DOTALL)
BOOLEANS = frozenset({"False", "True"})
"""As Python and pandas write them."""
LONGEST = 40
"""More zeros than these are written as an exponent."""
SHOWN = 3
GROUPS = 5


def value_name(text: str) -> str:
    """The name of a value, by its text."""
    if not NUMBER.fullmatch(text) or CODE.fullmatch(text):
        return text
    try:
        value = Decimal(text).normalize(Context(prec=len(text), Emax=MAX_EMAX, Emin=MIN_EMIN))
    except InvalidOperation:  # Its exponent is too long.
        return text
    if not value:
        return "0"
    return f"{value:f}" if abs(int(value.as_tuple().exponent)) <= LONGEST else str(value)


def with_booleans(names: list[str], like: Iterable[str]) -> list[str]:
    """The names of values, those of booleans in one spelling if the column holds nothing else.

    Args:
        names: of values.
        like: names in the training rows, which say what the column holds.
    """
    if not {name.capitalize() for name in like} <= BOOLEANS:
        return names
    return [name.capitalize() if name.capitalize() in BOOLEANS else name for name in names]


def is_fraction(name: str) -> bool:
    """Whether a name is of a number that is not whole."""
    return bool(NUMBER.fullmatch(name)) and not CODE.fullmatch(name) and not WHOLE.fullmatch(name)


def look_alike(what: str, names: Iterable[str]) -> list[str]:
    """A message for each of the first few groups of names that look the same, but for case, blanks or form.

    Args:
        what: the names are of, such as classes.
        names: that differ.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault("".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    groups = [group for group in alike.values() if len(group) > 1][:GROUPS]
    return [
        f"the {what} {', '.join(map(ascii, group))} differ in case, blanks or the form of letters alone"
        for group in groups
    ]


def surprises(texts: Iterable[str]) -> str:
    """What a user may not expect of the names of values, for a message; empty if there is nothing.

    Args:
        texts: the different values.
    """
    texts = sorted(texts)
    codes = [text for text in texts if NUMBER.fullmatch(text) and CODE.fullmatch(text)]
    spellings: dict[str, list[str]] = {}
    for text in texts:
        if NUMBER.fullmatch(text) and text not in codes:
            spellings.setdefault(value_name(text), []).append(text)
    told = []
    merged = [" and ".join(same) for same in spellings.values() if len(same) > 1]
    if merged:
        told.append(f"{shown(merged, SHOWN)} are the same number and count as one")
    if codes and len({len(text) for text in [*codes, *(same[0] for same in spellings.values())]}) > 1:
        numbers = f", and the others, such as {next(iter(spellings))}, are numbers" if spellings else ""
        told.append(
            f"those with a leading zero, such as {codes[0]}, are names, each of its own{numbers}; where these mean the "
            "same, write them alike"
        )
    return "; ".join(told)
