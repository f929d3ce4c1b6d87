"""Conditions as text: ``decrease:2 & after:500``.

    either = both { "|" both }
    both   = not { "&" not }
    not    = "~" not | "(" either ")" | "matched" "(" either ")" | NAME [ ":" number { "," number } ]

NAME is one of ``NAMES`` or, with a dot in it, the import path of a user's own class.
"""

import importlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

from seeking.conditions.base import Condition
from seeking.conditions.chance import MatchedCount, RandomTimes
from seeking.conditions.timing import After, Always, Every, Never
from seeking.conditions.trend import ConsecutiveDecrease
from seeking.errors import SeekingError, unknown

NAMES: dict[str, type[Condition]] = {
    "decrease": ConsecutiveDecrease,
    "random": RandomTimes,
    "matched": MatchedCount,
    "always": Always,
    "never": Never,
    "every": Every,
    "after": After,
}

_TOKEN = re.compile(r"\s*(?:([&|~()])|([^\W\d][\w.]*)(?::([^\s&|~()]*))?)")

DEEPEST = 50
LONGEST = 1000


def parse(text: str, seed: int = 0, imports: bool = True) -> Condition:
    """Read a condition.

    Args:
        text: the condition, in the grammar of this module.
        seed: for the conditions of chance in it.
        imports: whether to import classes of the user's own; to be denied to text from others.

    Raises:
        SeekingError: the text does not parse, a name is unknown, or a condition refuses its argument; the message
            points at the place.
    """
    return _Parser(text, seed, imports).parse()


class _Parser:
    def __init__(self, text: str, seed: int, imports: bool) -> None:
        self.text = text
        self.seed = seed
        self.imports = imports
        self.place = 0
        self.depth = 0

    def parse(self) -> Condition:
        if len(self.text) > LONGEST:
            raise SeekingError(f"condition: {len(self.text)} characters long; at most {LONGEST} are read")
        condition = self.either()
        if self.peek():
            raise self.error("'&', '|' or the end is expected here")
        if len(str(condition)) > LONGEST:
            raise SeekingError(f"condition: more than {LONGEST} characters long when its numbers are written out")
        return condition

    def either(self) -> Condition:
        condition = self.both()
        while self.take("|"):
            condition = condition | self.both()
        return condition

    def both(self) -> Condition:
        condition = self.single()
        while self.take("&"):
            condition = condition & self.single()
        return condition

    def single(self) -> Condition:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(f"nested more than {DEEPEST} deep")
        try:
            if self.take("~"):
                return ~self.single()
            if self.take("("):
                return self.closed()
            return self.atom()
        finally:
            self.depth -= 1

    def closed(self) -> Condition:
        condition = self.either()
        if not self.take(")"):
            raise self.error("')' is expected here")
        return condition

    def atom(self) -> Condition:
        start = self.match()
        if start is None or not start[2]:
            raise self.error("the name of a condition is expected here")
        place, name, given = start.start(2), start[2], start[3]
        if "." not in name and name not in NAMES:
            raise self.error(str(unknown("condition", name, NAMES)), place)
        self.place = start.end()
        if name == "matched":
            if given is not None or not self.take("("):
                raise self.error("matched needs a condition in parentheses, such as matched(decrease:2)", place)
            return MatchedCount(self.closed(), seed=self.next_seed())
        make: Callable[..., object] = NAMES[name] if "." not in name else self.imported(name, place)
        try:
            arguments = [_number(part) for part in given.split(",")] if given is not None else []
            condition = make(*arguments, **({"seed": self.next_seed()} if make is RandomTimes else {}))
        except (TypeError, ValueError) as error:
            raise self.error(f"{name}: {error}", place) from error
        if not isinstance(condition, Condition):
            raise self.error(f"{name} is a {type(condition).__name__}, not a seeking.Condition", place)
        return condition

    def imported(self, name: str, place: int) -> Callable[..., object]:
        if not self.imports:
            raise self.error(f"{name} would be imported, which is not allowed here", place)
        module, _, attribute = name.rpartition(".")
        here = str(Path.cwd())
        sys.path.insert(0, here)
        try:
            made: Callable[..., object] = getattr(importlib.import_module(module), attribute)
            return made
        except Exception as error:
            raise self.error(f"cannot import {name}: {error}", place) from error
        finally:
            sys.path.remove(here)

    def next_seed(self) -> int:
        """Conditions of chance follow from the run's seed, and each draws on its own."""
        self.seed += 1_000_003
        return self.seed - 1_000_003

    def peek(self) -> str:
        return self.text[self.place :].strip()

    def match(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.place)

    def take(self, symbol: str) -> bool:
        found = self.match()
        if found is None or found[1] != symbol:
            return False
        self.place = found.end()
        return True

    def error(self, message: str, place: int | None = None) -> SeekingError:
        if place is None:
            place = len(self.text) - len(self.text[self.place :].lstrip())
        return SeekingError(f"condition: {message}\n  {self.text}\n  {' ' * place}^")


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"{text} is not a finite number") from None
        return number
