"""Conditions as text: ``decrease:2 & after:500``.

    or   = and { "|" and }
    and  = not { "&" not }
    not  = "~" not | "(" or ")" | NAME "(" or ")" | NAME [ ":" number { "," number } ]

NAME is that of a registered condition (every module of ``seeking.conditions`` may register some) or, with a dot in it,
the import path of a custom class.
"""

import functools
import importlib
import inspect
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from seeking.conditions.base import Condition
from seeking.conditions.registry import REGISTRY, Registered
from seeking.errors import SeekingError, unknown
from seeking.plugins import modules_of

_TOKEN = re.compile(r"\s*(?:([&|~()])|([^\W\d][\w.]*)(?::\s*([^\s&|~(),]*(?:,\s*[^\s&|~(),]*)*))?)")

MAX_DEPTH = 50
MAX_LENGTH = 1000


@functools.cache
def known() -> Mapping[str, Registered]:
    """The registered conditions by name."""
    modules_of(__name__.rpartition(".")[0])
    return REGISTRY


def parse(text: str, seed: int = 0, imports: bool = True, option: str = "condition") -> Condition:
    """Parse a condition.

    Args:
        text: the condition, in the grammar of this module.
        seed: seed of the random conditions in it.
        imports: whether to import custom classes; must be False for untrusted text.
        option: that the text was given for, for error messages.

    Raises:
        SeekingError: the text does not parse, a name is unknown, or a condition rejects its argument; the message
            points at the position.
    """
    return _Parser(text, seed, imports, option).parse()


class _Parser:
    def __init__(self, text: str, seed: int, imports: bool, option: str) -> None:
        self.text = text
        self.seed = seed
        self.imports = imports
        self.option = option
        self.position = 0
        self.depth = 0

    def parse(self) -> Condition:
        if len(self.text) > MAX_LENGTH:
            raise SeekingError(f"{self.option}: {len(self.text)} characters long; the limit is {MAX_LENGTH}")
        condition = self.parse_or()
        if self.text[self.position :].strip():
            raise self.error("'&', '|' or the end is expected here")
        if len(str(condition)) > MAX_LENGTH:
            raise SeekingError(
                f"{self.option}: more than {MAX_LENGTH} characters long when its numbers are written out"
            )
        return condition

    def parse_or(self) -> Condition:
        condition = self.parse_and()
        while self.accept("|"):
            condition = condition | self.parse_and()
        return condition

    def parse_and(self) -> Condition:
        condition = self.parse_not()
        while self.accept("&"):
            condition = condition & self.parse_not()
        return condition

    def parse_not(self) -> Condition:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"nested more than {MAX_DEPTH} deep")
        try:
            if self.accept("~"):
                return ~self.parse_not()
            if self.accept("("):
                return self.parse_closed()
            return self.parse_named()
        finally:
            self.depth -= 1

    def parse_closed(self) -> Condition:
        condition = self.parse_or()
        if not self.accept(")"):
            raise self.error("')' is expected here")
        return condition

    def parse_named(self) -> Condition:
        token = self.next_token()
        if token is None or not token[2]:
            raise self.error("the name of a condition is expected here")
        position, name, numbers = token.start(2), token[2], token[3]
        if "." not in name and name not in known():
            raise self.error(str(unknown("condition", name, known())), position)
        self.position = token.end()
        make, wraps = known()[name] if "." not in name else Registered(self.import_class(name, position), wraps=False)
        arguments: list[Condition | int | float] = []
        if wraps:
            if numbers is not None or not self.accept("("):
                raise self.error(f"{name} needs a condition in parentheses, such as {name}(decrease:2)", position)
            arguments = [self.parse_closed()]
        parameters = dict(inspect.signature(make).parameters)
        seeded = "." not in name and parameters.pop("seed", None) is not None
        try:
            given = [_number(part) for part in numbers.split(",")] if numbers is not None else []
            _check_count([*parameters.values()][len(arguments) :], len(given))
            arguments += given
            condition = make(*arguments, **({"seed": self.next_seed()} if seeded else {}))
        except (TypeError, ValueError) as error:
            raise self.error(f"{name}: {error}", position) from error
        return condition

    def import_class(self, name: str, position: int) -> type[Condition]:
        if not self.imports:
            raise self.error(f"{name} would be imported, which is not allowed here", position)
        module, _, attribute = name.rpartition(".")
        folder = str(Path.cwd())
        sys.path.insert(0, folder)
        try:
            imported = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise self.error(f"cannot import {name}: {error}", position) from error
        finally:
            sys.path.remove(folder)
        if not (isinstance(imported, type) and issubclass(imported, Condition)):
            raise self.error(f"{name} is not a subclass of seeking.Condition", position)
        return imported

    def next_seed(self) -> int:
        """A seed derived from the run's; each random condition has its own."""
        self.seed += 1_000_003
        return self.seed - 1_000_003

    def next_token(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.position)

    def accept(self, symbol: str) -> bool:
        token = self.next_token()
        if token is None or token[1] != symbol:
            return False
        self.position = token.end()
        return True

    def error(self, message: str, position: int | None = None) -> SeekingError:
        if position is None:
            position = len(self.text) - len(self.text[self.position :].lstrip())
        return SeekingError(f"{self.option}: {message}\n  {self.text}\n  {' ' * position}^")


def _check_count(parameters: Sequence[inspect.Parameter], given: int) -> None:
    """Refuse too few or too many numbers for these parameters."""
    numbers = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    least = sum(p.default is p.empty for p in numbers)
    most = len(numbers) if all(p.kind is not p.VAR_POSITIONAL for p in parameters) else given
    if not least <= given <= most:
        named = f" ({', '.join(p.name for p in numbers)})" if numbers else ""
        count = str(least) if least == most else f"{least} to {most}"
        raise ValueError(f"takes {count} number{'s' * (count != '1')}{named}, not {given}")


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number
