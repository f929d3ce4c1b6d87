"""The base's positions in each channel space of the motivated model, as a weights map has them."""

import collections
import itertools
import math
from collections.abc import Mapping, Sequence

from seeking.matching.axes import Axis, Space, segments_of, size_of, terminal
from seeking.weights_map import Index, WeightsMap


class Positions:
    """Where the base lies in each channel space.

    Tensors that share a space should have one index there. Where they do not, most of them decide: the others are
    then seen to differ.

    Args:
        weights_map: of the base in the motivated model.
        axes: of the motivated model's tensors, by name.
    """

    def __init__(self, weights_map: WeightsMap, axes: Mapping[str, Sequence[Axis]]) -> None:
        self._votes: dict[Space, collections.Counter[tuple[int, ...]]] = {}
        self._joins: dict[Axis, collections.Counter[tuple[int, ...]]] = {}
        """Of axes that join parts of one space, of which the base may have fewer."""
        ballots: collections.Counter[tuple[Axis, Index]] = collections.Counter()
        for entry in weights_map.entries.values():
            for axis, index in zip(axes.get(entry.target, ()), entry.index, strict=False):
                ballots[tuple(terminal(axis)), index] += 1
        for (axis, index), count in ballots.items():
            self._vote(axis, list(index), count)
            if any(len({*map(tuple, parts)}) < len(parts) for parts in map(segments_of, axis)):
                self._joins.setdefault(axis, collections.Counter())[tuple(index)] += count

    def of(self, axis: Axis) -> list[int] | None:
        """The base's positions in an axis, in their order; None where the map does not tell."""
        if join := self._joins.get(tuple(terminal(axis))):
            return list(join.most_common(1)[0][0])
        positions = [0]
        for space in terminal(axis):
            inner = self._in_space(space)
            if inner is None:
                return None
            positions = [outer * space.size + position for outer in positions for position in inner]
        return positions

    def left_out(self, axis: Axis) -> list[int] | None:
        """As ``of``, but None as well where the base's positions are all."""
        if not any(space in self._votes or space.segments for space in terminal(axis)):
            return None
        positions = self.of(axis)
        return positions if positions is not None and len(positions) < size_of(axis) else None

    def _in_space(self, space: Space) -> list[int] | None:
        segments = segments_of(space) if not space.fixed else []
        if not segments:
            votes = self._votes.get(space)
            if votes:
                # A part of a join that is left out says nothing of other parts of the same channels.
                return list(max(votes.items(), key=lambda vote: (bool(vote[0]), vote[1]))[0])
            return list(range(space.size)) if space.fixed else None
        positions, start = [], 0
        for segment in segments:
            inner = self.of(segment)
            if inner is None:
                return None
            positions += [start + position for position in inner]
            start += size_of(segment)
        return positions

    def _vote(self, axis: Axis, positions: list[int], count: int) -> None:
        spaces = terminal(axis)
        for space, own in zip(spaces, _factors(positions, [space.size for space in spaces]), strict=False):
            segments = segments_of(space) if not space.fixed else []
            if not segments:
                self._votes.setdefault(space, collections.Counter())[tuple(own)] += count
            start = 0
            for segment in segments:
                end = start + size_of(segment)
                self._vote(segment, [position - start for position in own if start <= position < end], count)
                start = end


def _factors(positions: list[int], sizes: Sequence[int]) -> list[list[int]]:
    """The positions in each factor of a product; none if they are no product."""
    if len(sizes) == 1:
        return [positions]
    factors = []
    for place, size in enumerate(sizes):
        within = math.prod(sizes[place + 1 :])
        factors.append(list(dict.fromkeys(position // within % size for position in positions)))
    products = [0]
    for factor, size in zip(factors, sizes, strict=True):
        products = [outer * size + inner for outer, inner in itertools.product(products, factor)]
    return factors if products == positions else []
