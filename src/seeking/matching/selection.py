"""Which positions of each channel space are the base's."""

from collections.abc import Iterable, Mapping, Sequence

from seeking.choices import WidthPolicy
from seeking.errors import SeekingError
from seeking.matching.align import choose
from seeking.matching.axes import Axis, Space, size_of, terminal
from seeking.matching.solve import value
from seeking.weights_map import Index


class Selection:
    """The base's positions in each space of the motivated model.

    Args:
        sizes: how much of each space is the base's.
        width: which positions of a larger space are the base's.
        layers: the base's positions in spaces that have an entry for each layer.
    """

    def __init__(self, sizes: Mapping[Space, int], width: WidthPolicy, layers: Mapping[Space, Index]) -> None:
        self._sizes = dict(sizes)
        self._layers = layers
        self._width = width
        self._pinned: dict[Space, Index] = {}
        self._pinned_by: dict[Space, str] = {}
        self._cache: dict[tuple[Space, ...], Index] = {}

    def pin(self, dimension: str, axis: Axis, positions: Index) -> None:
        """Take the user's positions for a whole space.

        Raises:
            SeekingError: the axis is not one space that may grow, or its positions are others already.
        """
        spaces = terminal(axis)
        if len(spaces) != 1 or spaces[0].segments:
            raise SeekingError(
                f"{dimension}: several channel spaces meet in this dimension; pin a dimension that one of them has "
                "alone, or this tensor's index without its space"
            )
        if spaces[0].fixed:
            raise SeekingError(
                f"{dimension}: the {spaces[0].fixed} is the same in both models; there is nothing to pin"
            )
        first = self._pinned_by.setdefault(spaces[0], dimension)
        if (known := self._pinned.setdefault(spaces[0], positions)) != positions:
            raise SeekingError(
                f"{dimension}: its override has {positions} for the whole channel space, and that of {first}, which "
                f"the same channels run through, {known}; give one of them, or both the same"
            )

    def is_pinned(self, axes: Iterable[Axis]) -> bool:
        """Whether a pinned space is among those of these axes."""
        return any(space in self._pinned for axis in axes for space in terminal(axis))

    def index(self, axis: Axis, size: int, target_size: int) -> Index:
        """The base's positions in a dimension of the motivated model.

        Args:
            axis: of the dimension.
            size: of the dimension in the base.
            target_size: of the dimension in the motivated model.
        """
        if value(axis, self._sizes) != size:
            # Nothing tells the parts of this dimension apart.
            return Index.of(choose(size, target_size, self._width))
        key = tuple(terminal(axis))
        if key not in self._cache:
            self._cache[key] = Index.of(self._in_product(key))
        return self._cache[key]

    def _in_product(self, axis: Axis) -> Sequence[int]:
        positions: Sequence[int] = range(1)
        for space in terminal(axis):
            inner = self._in_space(space)
            if positions == range(1):
                positions = inner
            elif inner == range(space.size) and isinstance(positions, range) and positions.step == 1:
                positions = range(positions.start * space.size, positions.stop * space.size)
            else:
                positions = [outer * space.size + position for outer in positions for position in inner]
        return positions

    def _in_space(self, space: Space) -> Sequence[int]:
        if space.segments:
            positions: list[int] = []
            start = 0
            for segment in space.segments:
                positions += [start + position for position in self._in_product(segment)]
                start += size_of(segment)
            return positions
        if space.fixed:
            return range(space.size)
        known = self._pinned.get(space, self._layers.get(space))
        if known is not None:
            return list(known)
        return choose(self._sizes[space], space.size, "leading" if space.ordered else self._width)
