"""Settings of shared parts in which the two models differ."""

import functools
import itertools
import math
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from seeking.internals import Dropout
from seeking.matching.axes import terminal
from seeking.verification.views import Views
from seeking.weights_map import WeightsMap, tensors

PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, type(None))
"""Types of settings; tuples, lists and sets of these are, too."""

DEPTH = 4
"""Objects within objects are looked at so deep, such as the configuration of a part of a model in that of the whole."""

MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))


@dataclass(frozen=True)
class Setting:
    """A value that is another in the base.

    Attributes:
        name: its path in the motivated model.
        values: what holds it there, as attributes or in a mapping.
        key: its name in it.
        base: the base's value.
    """

    name: str
    values: dict[Any, Any]
    key: Any
    base: Any

    def __str__(self) -> str:
        base, motivated = reprlib.repr(self.base), reprlib.repr(self.values[self.key])
        return f"{self.name} ({base} in the base, {motivated} in the motivated model)"


def differing_settings(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, views: Iterable[Views]
) -> list[Setting]:
    """Attributes of shared modules, and of objects in them, that are another in the base; no sizes of the models.

    Rates of layers of dropout and stochastic depth, which ``match`` compares, are left out.

    Args:
        base: the smaller model.
        motivated: the larger model.
        weights_map: says which modules are shared.
        views: traces of both models, which tell sizes such as the number of heads.
    """
    sizes = _sizes(base, motivated, weights_map, views)
    return [
        setting
        for setting in _differing(base, motivated, weights_map)
        if not (type(setting.base) is int and (setting.base, setting.values[setting.key]) in sizes)
    ]


def _sizes(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, views: Iterable[Views]
) -> set[tuple[int, int]]:
    """Sizes of dimensions, of what they are a product of, and of lists of modules: the base's and the other's."""
    sizes: set[tuple[int, int]] = set()
    for name, counterpart in _module_pairs(base, motivated, weights_map).items():
        modules = base.get_submodule(name), motivated.get_submodule(counterpart)
        sizes.add((len([*modules[0].children()]), len([*modules[1].children()])))
    shapes = {name: tensor.shape for name, tensor in tensors(base).items()}
    larger = {name: tensor.shape for name, tensor in tensors(motivated).items()}
    for name, entry in weights_map.entries.items():
        sizes.update(zip(shapes[name], larger[entry.target], strict=True))
        for small, large in views:
            if small and large:
                axes = small.axes.get(name, ()), large.axes.get(entry.target, ())
                for axis, other in zip(*axes, strict=False):
                    factors = [[space.size for space in terminal(a)] for a in (axis, other)]
                    sizes.update(_products(*factors))
    return sizes


def _products(small: list[int], large: list[int]) -> Iterator[tuple[int, int]]:
    """What one or more neighboring factors of a size make: in the base, and in the motivated model."""

    def ranges(factors: list[int]) -> Iterator[tuple[int, int]]:
        return itertools.combinations(range(len(factors) + 1), 2)

    for ours, others in itertools.product(ranges(small), ranges(large)):
        if ours == others or len(small) != len(large):
            yield math.prod(small[slice(*ours)]), math.prod(large[slice(*others)])


def _differing(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap) -> Iterator[Setting]:
    seen: set[tuple[int, int]] = set()
    for name, counterpart in _module_pairs(base, motivated, weights_map).items():
        small, large = base.get_submodule(name), motivated.get_submodule(counterpart)
        if type(small) is type(large) and not isinstance(small, Dropout) and not hasattr(small, "drop_prob"):
            yield from _differing_values(vars(small), vars(large), counterpart, seen)


def _module_pairs(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap) -> dict[str, str]:
    """The motivated model's module for each of the base's: those of shared tensors, around them, and beside them."""
    pairs = {"": ""}
    for name, entry in weights_map.entries.items():
        ours, others = name.split(".")[:-1], entry.target.split(".")[:-1]
        while ours and others:
            pairs.setdefault(".".join(ours), ".".join(others))
            ours, others = ours[:-1], others[:-1]
    names = dict(motivated.named_modules(remove_duplicate=False))
    for name, _ in base.named_modules(remove_duplicate=False):
        parent, _, child = name.rpartition(".")
        if name not in pairs and parent in pairs:
            counterpart = f"{pairs[parent]}.{child}".removeprefix(".")
            if counterpart in names:
                pairs[name] = counterpart
    return pairs


def _differing_values(
    small: dict[Any, Any], large: dict[Any, Any], name: str, seen: set[tuple[int, int]], depth: int = DEPTH
) -> Iterator[Setting]:
    if not depth or (id(small), id(large)) in seen:
        return
    seen.add((id(small), id(large)))
    for key, value in small.items():
        if key not in large or key in MODULE_ATTRIBUTES:
            continue
        other, place = large[key], f"{name}.{key}".removeprefix(".")
        if _is_plain(value) and _is_plain(other):
            if value != other:
                yield Setting(place, large, key, value)
        elif (parts := _parts(value)) is not None and (others := _parts(other)) is not None:
            yield from _differing_values(parts, others, place, seen, depth - 1)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    return isinstance(value, PLAIN)


def _parts(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, functools.partial):
        value = value.keywords
    if isinstance(value, dict):
        return value
    if isinstance(value, (nn.Module, Tensor, type, FunctionType, MethodType)) or not hasattr(value, "__dict__"):
        return None
    attributes: dict[Any, Any] = vars(value)
    return attributes
