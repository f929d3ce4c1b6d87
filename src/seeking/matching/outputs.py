"""What the dimensions of a model's outputs are, which nothing in it reads."""

from collections.abc import Iterable

from seeking.matching.axes import Axis, Space, fix, size_of, terminal
from seeking.matching.op_rules.base import unify_or_fix


def settle(outputs: Iterable[Iterable[Axis]], rows: Iterable[Axis]) -> None:
    """Unify the heads over words with the embeddings of these, and fix all else that is only put out.

    Args:
        outputs: the axes of each tensor that a model puts out.
        rows: the first axis of each matrix that it uses.
    """
    vocabularies = {size_of(axis): axis for axis in rows if _is_vocabulary(axis)}
    for axes in outputs:
        for axis in axes:
            if (words := vocabularies.get(size_of(axis))) and _is_unread(axis):
                # Where the two are tied, they are one space anyway.
                unify_or_fix(words, axis)
            for space in axis:
                _fix_unread(space)


def _is_vocabulary(axis: Axis) -> bool:
    """Whether the positions of an axis are looked up, as the rows of an embedding are."""
    spaces = terminal(axis)
    return len(spaces) == 1 and spaces[0].ordered and spaces[0].read and not spaces[0].fixed


def _is_unread(axis: Axis) -> bool:
    spaces = terminal(axis)
    return len(spaces) == 1 and not spaces[0].read and not spaces[0].fixed


def _fix_unread(space: Space) -> None:
    """Fix what a model only puts out: it is of one length in both models."""
    for part in space.parts or ():
        _fix_unread(part)
    if space.parts is None and not space.read:
        fix((space,), "length of the output")
