"""Outputs of all layers of a stage, joined: which of them are the base's, if the stage is longer."""

from collections.abc import Iterable, Mapping, Sequence

from seeking.matching.axes import Space, segments_of, size_of, terminal
from seeking.matching.solve import Dimension

Places = Mapping[tuple[int, int], Sequence[Sequence[int]]]
"""Of stages, by their lengths in both models: where the base's blocks lie."""


def leave_out_extra_parts(dimensions: Iterable[Dimension], places: Places) -> bool:
    """Tell the outputs of extra layers from the base's, where layers of one stage are joined.

    Channels that all layers add to are one space, of which a join has a part for each layer: its size tells nothing of
    which parts are the base's. Parts of a single channel are no spaces at all. The parts of extra layers become spaces
    of their own, which nothing of the base reaches.

    Args:
        dimensions: of the base's tensors; the axes in the motivated model are changed.
        places: of the stages. What is joined before the stage, such as its input, is the base's.

    Returns:
        Whether an axis was changed.
    """
    seen: set[Space] = set()
    for dimension in dimensions:
        large, small = terminal(dimension.axis), terminal(dimension.own_axis)
        for position, space in enumerate(large):
            parts = segments_of(space) if not space.fixed else []
            count = _count(small, position, len(large))
            if len(parts) <= count or not count or space in seen:
                continue
            kept = {
                (*range(len(parts) - longer), *(len(parts) - longer + place for place in stage))
                for (shorter, longer), stages in places.items()
                for stage in stages
                if len(parts) - longer == count - shorter >= 0
            }
            if len(kept) == 1:
                (own,) = kept
                space.segments = tuple(
                    part if number in own else (Space(size_of(part)),) for number, part in enumerate(parts)
                )
                seen.add(space)
    return bool(seen)


def _count(small: Sequence[Space], position: int, rank: int) -> int:
    """Of how many parts the base's axis is, in the place of a space of the motivated model; 0 if that is unknown."""
    if len(small) == rank:
        return len(segments_of(small[position])) or 1
    return 1 if rank == 1 else 0
