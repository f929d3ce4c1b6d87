"""What there is one of for each layer of a stage: which of them are the base's, if the stage is longer."""

from collections.abc import Iterable, Sequence

from seeking.matching.align import Places, layer_positions
from seeking.matching.axes import STACKED, Space, segments_of, size_of, terminal
from seeking.matching.op_rules.views import TAKEN_APART
from seeking.matching.solve import Dimension
from seeking.weights_map import Index


def let_layers_grow(dimensions: Iterable[Dimension], places: Places) -> dict[Space, Index]:
    """Let spaces grow that have an entry for each layer, as the weights of a sum of all layers' outputs.

    Args:
        dimensions: of the base's tensors; the axes in the motivated model are changed.
        places: of the stages.

    Returns:
        The base's positions in these spaces.
    """
    positions: dict[Space, Index] = {}
    for dimension in dimensions:
        large, small = terminal(dimension.axis), terminal(dimension.own_axis)
        kinds = [space.fixed for space in large]
        if len(large) == 1:
            small = [Space(dimension.size, kinds[0])]
        elif kinds.count(STACKED) == 1 and len(small) == len(large) - 1:
            # Of one layer there is no space.
            small.insert(kinds.index(STACKED), Space(1, STACKED))
        if [space.fixed for space in small] != kinds:
            continue
        for own, space in zip(small, large, strict=True):
            by_layer = space.fixed in (STACKED, TAKEN_APART)
            layer_indices = layer_positions(places, own.size, space.size) if by_layer else None
            if layer_indices is not None:
                space.fixed = ""
                positions[space] = Index.of(layer_indices)
    return positions


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
            wide = [number for number, part in enumerate(parts) if part]
            # Of a slice, a rest of a single channel is nothing that the base has.
            own = layer_positions(places, count, len(parts)) or (wide if len(wide) == count else None)
            if own is not None:
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
