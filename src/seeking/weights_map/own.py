"""Tensors of the base that each model keeps for itself, though the map says where they lie."""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from seeking.errors import unknown


def chosen(names: Iterable[str], patterns: Sequence[str]) -> frozenset[str]:
    """The names of tensors that one of these patterns matches.

    Args:
        names: of the base's tensors.
        patterns: of names as a shell has them (``*``, ``?``, ``[ab]``): of tensors, or of modules with all their
            tensors.

    Raises:
        SeekingError: a pattern matches nothing.
    """
    known = {name: [*_outer(name)] for name in names}
    own: set[str] = set()
    for pattern in patterns:
        matched = {name for name, outer in known.items() if any(fnmatchcase(each, pattern) for each in outer)}
        if not matched:
            raise unknown("tensor or module of the base", pattern, {each for outer in known.values() for each in outer})
        own |= matched
    return frozenset(own)


def _outer(name: str) -> Iterator[str]:
    """A tensor's name, and those of the modules that it is in."""
    while name:
        yield name
        name = name.rpartition(".")[0]
