"""Tensors of the base that each model keeps for itself, though the map says where they lie."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from seeking.errors import SeekingError, unknown
from seeking.weights_map.tensors import owners


def chosen(names: Iterable[str], patterns: Sequence[str]) -> frozenset[str]:
    """The names of tensors that one of these patterns matches.

    Args:
        names: of the base's tensors.
        patterns: of names as a shell has them (``*``, ``?``, ``[ab]``): of tensors, or of modules with all their
            tensors.

    Raises:
        SeekingError: a pattern is no text, or matches nothing.
    """
    known = {name: [name, *owners(name)[1:]] for name in names}
    own: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise SeekingError(f"{pattern!r} is no pattern of names; give each pattern as text, such as 'norm*'")
        matched = {name for name, outer in known.items() if any(fnmatchcase(each, pattern) for each in outer)}
        if not matched:
            raise unknown("tensor or module of the base", pattern, {each for outer in known.values() for each in outer})
        own |= matched
    return frozenset(own)
