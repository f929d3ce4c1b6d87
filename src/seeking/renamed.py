"""Options that have got another name: what files, flags and runs of older versions call them."""

from collections.abc import Mapping, Sequence
from typing import Any

from seeking.errors import SeekingError

RENAMED = {"hold_out": "split_method"}
"""Today's name, by the older one."""


def today(options: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Options under their names of today.

    Args:
        options: by name, with ``_``.
        where: they come from, for the message.

    Raises:
        SeekingError: one is given under both of its names.
    """
    for old, new in RENAMED.items():
        if old in options and new in options:
            raise SeekingError(f"{where}: {old} is an older name of {new}, and both are given; leave {old} out")
    return {RENAMED.get(name, name): value for name, value in options.items()}


def today_flags(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags under their names of today, and a message for each that was an older one."""
    flags, messages = [], []
    for arg in args:
        flag, equals, value = arg.partition("=")
        new = RENAMED.get(flag[2:].replace("-", "_")) if flag.startswith("--") else None
        if new is None:
            flags.append(arg)
            continue
        flags.append(f"--{new.replace('_', '-')}{equals}{value}")
        messages.append(f"{flag} is now called --{new.replace('_', '-')}; a later version will not know the old name")
    return flags, messages
