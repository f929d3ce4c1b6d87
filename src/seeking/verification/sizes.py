"""Sizes in which the two models differ: numbers that say how large a model is, and not what it computes."""

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from seeking.matching.axes import terminal
from seeking.verification.views import Views
from seeking.weights_map import WeightsMap, owners, tensors

Sizes = set[tuple[int, int]]
"""Pairs of the base's size and the motivated model's."""


def sizes_within(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    views: Collection[Views],
    counterparts: Mapping[str, str],
) -> dict[str, Sizes]:
    """For each module of the motivated model, sizes of shared tensors in it, of their factors, and of lists of modules.

    Args:
        base: the smaller model.
        motivated: the larger model.
        weights_map: says which tensors are shared.
        views: traces of both models, which tell factors such as the number of heads.
        counterparts: the motivated model's module for each of the base's, by name.
    """
    sizes: dict[str, Sizes] = defaultdict(set)

    def add(place: str, pairs: Collection[tuple[int, int]]) -> None:
        for around in owners(place):
            sizes[around].update(pairs)

    for name, counterpart in counterparts.items():
        modules = base.get_submodule(name), motivated.get_submodule(counterpart)
        add(counterpart, [(len([*modules[0].children()]), len([*modules[1].children()]))])
    shapes, larger = ({name: t.shape for name, t in tensors(model).items()} for model in (base, motivated))
    for name, entry in weights_map.entries.items():
        pairs = {*zip(shapes[name], larger[entry.target], strict=True)}
        for small, large in views:
            if small and large:
                axes = small.axes.get(name, ()), large.axes.get(entry.target, ())
                for axis, other in zip(*axes, strict=False):
                    pairs.update(_products(*([space.size for space in terminal(each)] for each in (axis, other))))
        add(entry.target, pairs)
    return sizes


def is_size(base: Any, motivated: Any, sizes: Sizes) -> bool:
    """Whether two values, or all in which two lists of them differ, are sizes."""
    if isinstance(base, list | tuple) and isinstance(motivated, list | tuple) and len(base) <= len(motivated):
        # One entry for each block, perhaps.
        return all(a == b or is_size(a, b, sizes) for a, b in zip(base, motivated, strict=False))
    return type(base) is int and (base, motivated) in sizes


def _products(small: list[int], large: list[int]) -> Iterator[tuple[int, int]]:
    """What one or more neighboring factors of a size make: in the base, and in the motivated model."""

    def ranges(factors: list[int]) -> Iterator[tuple[int, int]]:
        return itertools.combinations(range(len(factors) + 1), 2)

    for ours, others in itertools.product(ranges(small), ranges(large)):
        if ours == others or len(small) != len(large):
            yield math.prod(small[slice(*ours)]), math.prod(large[slice(*others)])
