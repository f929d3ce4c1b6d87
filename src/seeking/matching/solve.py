"""How much of each channel space is the base's: sizes that explain the shape of every base tensor."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from seeking.errors import NotContainedError
from seeking.matching.axes import HEAD, MIXED, Axis, Space, is_fixed, segments_of, size_of, terminal

MAX_TRIES = 256
"""Sizes tried, in all, for spaces which no single equation determines."""


class Dimension(NamedTuple):
    """One dimension of a base tensor, and the axis of the motivated model's that it lies in."""

    name: str
    size: int
    axis: Axis
    own_axis: Axis
    """What the base model itself says that the dimension is made of; empty where it says nothing."""


def solve(dimensions: Iterable[Dimension]) -> dict[Space, int]:
    """Find the size that each space of the motivated model has in the base.

    What the two models agree on part by part is taken first. Then each dimension is an equation: the product of its
    spaces, or the sum of its segments, is the size of the base's dimension. What nothing of the base reaches, such as
    the outputs of extra layers in a concatenation, has size 0.

    Raises:
        NotContainedError: no sizes can explain a tensor.
    """
    dimensions = list(dimensions)
    agreed: dict[Space, int] = {}
    for dimension in dimensions:
        common = list(_common(dimension.own_axis, dimension.axis))
        differing = [space.fixed for space, size in common if size != space.size]
        if differing and set(differing) <= {"", MIXED} and _is_whole_sum(dimension):
            # Where a forward cuts it may depend on numbers; what is whole in both is the same however it is cut.
            continue
        for space, size in common:
            if space.fixed and size != space.size:
                raise _differs(dimension, space, size)
            agreed.setdefault(space, size)
    sizes = {space: size for space, size in agreed.items() if size <= space.size}
    return _complete(dimensions, sizes, iter(range(MAX_TRIES)))


def _is_whole_sum(dimension: Dimension) -> bool:
    spaces = terminal(dimension.axis)
    return dimension.size == size_of(dimension.axis) and len(spaces) == 1 and bool(spaces[0].segments)


def _complete(pending: list[Dimension], sizes: dict[Space, int], tries: Iterator[int]) -> dict[Space, int]:
    """Solve equations with one unknown until none is left; then try the sizes of an unknown one after the other."""
    for absent in (False, True):
        solved = -1
        while len(sizes) > solved:
            solved = len(sizes)
            pending = [d for d in pending if not _solve_product(d, d.axis, d.size, sizes, absent)]
    if not pending:
        return sizes
    # What is innermost, such as the channels of a head, is most often all there.
    *_, space = _unknown(pending[0].axis, sizes)
    refusal: NotContainedError | None = None
    for size in range(space.size, 0, -1):
        if next(tries, None) is None:
            break
        try:
            return _complete(pending, {**sizes, space: size}, tries)
        except NotContainedError as error:
            refusal = refusal or error
    raise refusal or _differs(pending[0])


def _unknown(axis: Axis, sizes: dict[Space, int]) -> Iterator[Space]:
    for space in terminal(axis):
        if value((space,), sizes) is None:
            if space.segments:
                for segment in segments_of(space):
                    yield from _unknown(segment, sizes)
            else:
                yield space


def _common(small: Axis, large: Axis) -> Iterator[tuple[Space, int]]:
    """The spaces of the motivated model's axis with their sizes in the base, where both are made of the same parts."""
    small_spaces, large_spaces = terminal(small), terminal(large)
    if len(small_spaces) == 1 and small_spaces[0].single and len(large_spaces) == 2:
        yield large_spaces[0], small_spaces[0].size
        yield large_spaces[1], 1
        return
    if len(small_spaces) != len(large_spaces):
        return
    for small_space, large_space in zip(small_spaces, large_spaces, strict=True):
        if large_space.segments is None or large_space.fixed:
            yield large_space, small_space.size
        elif len(segments_of(small_space)) == len(segments_of(large_space)):
            for small_segment, large_segment in zip(segments_of(small_space), segments_of(large_space), strict=True):
                yield from _common(small_segment, large_segment)


def value(axis: Axis, sizes: Mapping[Space, int]) -> int | None:
    """Length of the base's part of an axis; None if it is not known."""
    total = 1
    for space in terminal(axis):
        if space.segments and not space.fixed:
            parts = [value(segment, sizes) for segment in space.segments]
            known = None if None in parts else sum(part for part in parts if part is not None)
        else:
            known = space.size if space.fixed else sizes.get(space)
        if known is None:
            return None
        total *= known
    return total


def _solve_product(dimension: Dimension, axis: Axis, size: int, sizes: dict[Space, int], absent: bool) -> bool:
    known = 1
    unknown = []
    for space in terminal(axis):
        part = value((space,), sizes)
        if part is None:
            unknown.append(space)
        else:
            known *= part
    if not unknown:
        if known != size:
            raise _differs(dimension)
        return True
    if len(unknown) > 1:
        return False
    if known == 0 or size % known:
        raise _differs(dimension)
    (space,) = unknown
    size //= known
    if space.segments and not space.fixed:
        return _solve_sum(dimension, segments_of(space), size, sizes, absent)
    if size > space.size:
        raise _differs(dimension)
    sizes[space] = size
    return True


def _solve_sum(
    dimension: Dimension, segments: Iterable[Axis], size: int, sizes: dict[Space, int], absent: bool
) -> bool:
    unknown = []
    for segment in segments:
        part = value(segment, sizes)
        if part is None:
            unknown.append(segment)
        else:
            size -= part
    if size < 0:
        raise _differs(dimension)
    same = all(terminal(segment) == terminal(unknown[0]) for segment in unknown)
    if same and size % len(unknown) == 0 and size:
        return _solve_product(dimension, unknown[0], size // len(unknown), sizes, absent)
    if absent and not size:
        for segment in unknown:
            _remove(segment, sizes)
        return True
    return False


def _remove(axis: Axis, sizes: dict[Space, int]) -> None:
    for space in terminal(axis):
        if space.segments:
            for segment in space.segments:
                if value(segment, sizes) is None:
                    _remove(segment, sizes)
        elif not space.fixed:
            sizes.setdefault(space, 0)


def describe(axis: Axis) -> str:
    """An axis as text: ``3 (number of parts that are taken one by one) × 12 × 64 (size of a head)``."""
    words = []
    for space in terminal(axis):
        if space.segments and not space.fixed:
            text = f"({' + '.join(map(describe, segments_of(space)))})"
        else:
            text = f"{space.size} ({space.fixed})" if space.fixed else str(space.size)
        words.append(text)
    return " × ".join(words) or "1"


def _differs(dimension: Dimension, space: Space | None = None, size: int | None = None) -> NotContainedError:
    available = size_of(dimension.axis)
    parts = describe(dimension.axis)
    message = f"{dimension.name}: {dimension.size} in the base, {available} in the motivated model"
    why = is_fixed(dimension.axis)
    if why:
        message += f"; the {why} must be the same in both"
    elif space is not None:
        message += (
            f", made of {parts}; the {space.fixed} is {size} in the base and {space.size} in the motivated model, "
            "it must be the same in both"
        )
        if space.fixed == HEAD and size and available % size == 0:
            message += f" (a motivated model with heads of {size} could contain the base)"
    elif dimension.size > available:
        message += "; the motivated model's is smaller"
    elif parts != str(available):
        message += f", made of {parts}; no part of these makes up the base's"
    else:
        message += "; by other tensors that share these channels it is another part of them"
    return NotContainedError(message)
