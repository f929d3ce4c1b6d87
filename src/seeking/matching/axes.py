"""Channel spaces: what the dimensions of tensors are made of, and which of them are the same.

An *axis* is one dimension of one tensor: a product of spaces, outermost first, as in the ``(heads, head size)`` of a
projection's rows. A *space* is one stream of channels. It may turn out to be a product of smaller ones (when a tensor
is reshaped), a concatenation of axes (when tensors are joined, or one is cut), or the same as another (when tensors
are added): unification, as in type inference. What remains are spaces of which a larger model has more, and fixed
ones, which must be of one size in both models.
"""

import math
from collections.abc import Iterable, Sequence

Axis = tuple["Space", ...]

HEAD = "size of a head"
"""Why a space is fixed: attention scales the products of queries and keys by it."""

INPUT = "size of the input"
"""Why a space is fixed: both models get the same input."""

MIXED = "number of channels that are mixed across uneven boundaries"
"""Why a space is fixed: an operation cuts it where its parts do not begin or end."""

STACKED = "number of joined parts"
"""Why a space is fixed: a number of tensors are stacked, or a pattern repeats so often."""


class UnalignedError(Exception):
    """Two axes whose parts do not begin and end at the same positions."""


class Space:
    """One stream of channels, or one factor of a dimension.

    Attributes:
        size: how many channels.
        fixed: why the size must be the same in both models; empty where it may grow.
        ordered: whether position i means i, as in the rows of an embedding: only the leading ones can be the base's.
        read: whether the model computes with it, so that it is more than an output.
        single: whether it counts groups of one channel each, of which a larger model may have more.
        parts: the product that this space has turned out to be.
        segments: the axes that it concatenates.
    """

    __slots__ = ("fixed", "ordered", "parts", "read", "segments", "single", "size")

    def __init__(self, size: int, fixed: str = "", segments: tuple[Axis, ...] | None = None) -> None:
        self.size = size
        self.fixed = fixed
        self.ordered = False
        self.read = False
        self.single = False
        self.parts: Axis | None = None
        self.segments = segments


def size_of(axis: Axis) -> int:
    """Length of an axis."""
    return math.prod(space.size for space in axis)


def free(size: int) -> Axis:
    """An axis of which nothing is known yet."""
    return (Space(size),) if size != 1 else ()


def constant(size: int, why: str) -> Axis:
    """An axis of a size that is the same in both models."""
    return (Space(size, why),) if size != 1 else ()


def terminal(axis: Iterable[Space]) -> list[Space]:
    """The spaces that an axis has turned out to be a product of."""
    spaces: list[Space] = []
    for space in axis:
        if space.parts is None:
            spaces.append(space)
        else:
            space.parts = tuple(terminal(space.parts))
            spaces.extend(space.parts)
    return spaces


def segments_of(space: Space) -> list[Axis]:
    """The axes that a space concatenates, nested ones flattened; none if it is not a concatenation."""
    segments: list[Axis] = []
    for segment in space.segments or ():
        spaces = terminal(segment)
        nested = segments_of(spaces[0]) if len(spaces) == 1 and not spaces[0].fixed else []
        segments.extend(nested or [tuple(spaces)])
    return segments


def is_fixed(axis: Axis) -> str:
    """Why the whole axis is of one size in both models; empty if a part of it may grow."""
    spaces = terminal(axis)
    return spaces[0].fixed if spaces and all(space.fixed for space in spaces) else ""


def fix(axis: Axis, why: str) -> None:
    """Declare that an axis must be of one size in both models; any other reason is stronger than ``STACKED``."""
    for space in terminal(axis):
        space.fixed = why if space.fixed in ("", STACKED) else space.fixed
        for segment in space.segments or ():
            fix(segment, why)


def mark(axis: Axis, *, ordered: bool = False, read: bool = False) -> None:
    """Record that the positions of an axis are ordered, or that the model reads it."""
    for space in terminal(axis):
        space.ordered |= ordered
        space.read |= read
        for segment in space.segments or ():
            mark(segment, ordered=ordered, read=read)


def unify(first: Axis, second: Axis) -> None:
    """Declare that two axes of one length are the same.

    Raises:
        UnalignedError: their parts are not of the same sizes.
    """
    left, right = [*first][::-1], [*second][::-1]
    while (a := _pop_space(left)) and (b := _pop_space(right)):
        if a.size < b.size:
            (a, b), (left, right) = (b, a), (right, left)
        if a.size > b.size:
            outer, inner = factor(a, b.size)
            left.extend([*outer, *inner][::-1])
            right.append(b)
        elif a is not b:
            _identify(a, b)


def _pop_space(pending: list[Space]) -> Space | None:
    """Remove the first terminal space of an axis that is held backwards."""
    while pending:
        spaces = terminal((pending.pop(),))
        if spaces:
            pending.extend(spaces[:0:-1])
            return spaces[0]
    return None


def _identify(a: Space, b: Space) -> None:
    if a.fixed or b.fixed:
        fix((a,), b.fixed or a.fixed)
        fix((b,), a.fixed or b.fixed)
        return
    if a.segments and b.segments:
        ends = sorted({*_ends(a.segments), *_ends(b.segments)})
        for first, second in zip(_cut_at(a, ends), _cut_at(b, ends), strict=True):
            unify(first, second)
    elif b.segments:
        a, b = b, a
    a.read |= b.read
    a.ordered |= b.ordered
    a.single |= b.single
    if b.parts is None:
        b.parts = (a,)
    if a.segments:
        mark((a,), ordered=a.ordered, read=a.read)


def _ends(segments: Iterable[Axis]) -> list[int]:
    ends, end = [], 0
    for segment in segments:
        end += size_of(segment)
        ends.append(end)
    return ends


def _cut_at(space: Space, ends: Sequence[int]) -> list[Axis]:
    pieces, start = [], 0
    rest: Axis = (space,)
    for end in ends:
        piece, rest = cut(rest, end - start) if end - start < size_of(rest) else (rest, ())
        pieces.append(piece)
        start = end
    return pieces


def factor(space: Space, size: int) -> tuple[Axis, Axis]:
    """Take a space for a product whose outer factor is of this size.

    Raises:
        UnalignedError: it cannot be one.
    """
    if size < 1 or not space.size or space.size % size:
        raise UnalignedError
    within = space.size // size
    if space.fixed:
        return constant(size, space.fixed), constant(within, space.fixed)
    if space.segments is None:
        outer, inner = free(size), free(within)
        mark((*outer, *inner), ordered=space.ordered, read=space.read)
        space.parts = (*outer, *inner)
        return outer, inner
    segments = space.segments
    if all(size_of(segment) % within == 0 for segment in segments):
        # Every segment is a product with the same inner factor.
        inner = free(within)
        outer_segments = []
        for segment in segments:
            head, tail = regroup(segment, (size_of(segment) // within, within))
            unify(tail, inner)
            outer_segments.append(head)
        outer = (Space(size, segments=tuple(outer_segments)),)
    else:
        # Runs of segments repeat.
        pieces = _cut_at(space, [within * (i + 1) for i in range(size)])
        for piece in pieces[1:]:
            unify(pieces[0], piece)
        outer, inner = constant(size, STACKED), pieces[0]
    if space.parts is None:
        space.parts = (*outer, *inner)
    return outer, inner


def cut(axis: Axis, position: int) -> tuple[Axis, Axis]:
    """Cut an axis in two before a position, which lies inside.

    Raises:
        UnalignedError: the position lies within an inner factor.
    """
    if why := is_fixed(axis):
        return constant(position, why), constant(size_of(axis) - position, why)
    first, *rest = terminal(axis)
    within = size_of(tuple(rest))
    if not within or position % within:
        raise UnalignedError
    place = position // within
    if first.fixed:
        return (*constant(place, first.fixed), *rest), (*constant(first.size - place, first.fixed), *rest)
    if first.segments is None:
        first.segments = (free(place), free(first.size - place))
        mark((first,), ordered=first.ordered, read=first.read)
    before: list[Axis] = []
    after: list[Axis] = []
    start = 0
    for segment in first.segments:
        size = size_of(segment)
        if start + size <= place:
            before.append(segment)
        elif start >= place:
            after.append(segment)
        else:
            left, right = cut(segment, place - start)
            before.append(left)
            after.append(right)
        start += size
    return (*concatenate(before), *rest), (*concatenate(after), *rest)


def concatenate(axes: Sequence[Axis]) -> Axis:
    """The axis of a concatenation; what is empty is no part of it."""
    axes = [axis for axis in axes if size_of(axis)] or list(axes[:1])
    if len(axes) == 1:
        return axes[0]
    size = sum(map(size_of, axes))
    reasons = [is_fixed(axis) or ("size 1" if not axis else "") for axis in axes]
    if all(reasons) and any(axes):
        return constant(size, next(reason for axis, reason in zip(axes, reasons, strict=True) if axis))
    return (Space(size, segments=tuple(axes)),)


def regroup(axis: Iterable[Space], sizes: Sequence[int]) -> list[Axis]:
    """Cut a product, in row-major order, into axes of these sizes.

    Raises:
        UnalignedError: a boundary lies within a factor.
    """
    pending = [*axis][::-1]
    axes: list[Axis] = []
    for size in sizes:
        taken: list[Space] = []
        while size > 1:
            space = _pop_space(pending)
            if space is None or not space.size:
                raise UnalignedError
            while space.fixed and size % space.size and space.size % size and pending and pending[-1].fixed:
                space = Space(space.size * pending.pop().size, space.fixed)
            if size % space.size == 0:
                taken.append(space)
                size //= space.size
            else:
                outer, inner = factor(space, size)
                pending.extend(inner[::-1])
                taken.extend(outer)
                size = 1
        axes.append(tuple(taken))
    if _pop_space(pending):
        raise UnalignedError
    return axes
