"""Settings of shared parts in which the two models differ."""

import contextlib
import copy
import enum
import functools
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seeking.internals import registered_children
from seeking.matching.dropout import drops_out, is_rate
from seeking.verification.sizes import is_size, sizes_within
from seeking.verification.views import Views
from seeking.weights_map import WeightsMap, tensors

PLAIN = (bool, int, float, complex, str, bytes, range, slice, enum.Enum, np.generic, torch.dtype, type(None))
"""Types of settings; tuples, lists and sets of these are, too."""

DEPTH = 5
"""Objects within objects are looked at so deep, such as the configuration of a part of a model in that of the whole."""

MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))


@dataclass(frozen=True)
class Setting:
    """A value that is another in the base.

    Attributes:
        module: the shared module of the motivated model that has it.
        path: names of attributes, keys and positions from there to the value.
        owner: what holds it: a mapping, such as that of an object's attributes, a list, or a cell of a function; an
            object if it has the value from its class, or in a slot.
        base: the base's value.
        motivated: the motivated model's.
    """

    module: str
    path: tuple[Any, ...]
    owner: Any
    base: Any
    motivated: Any

    @property
    def name(self) -> str:
        """Where it is in the motivated model."""
        return ".".join(map(str, (*filter(None, [self.module]), *self.path)))

    @contextlib.contextmanager
    def as_in_base(self) -> Iterator[None]:
        """Inside, the owner holds the base's value."""
        _put(self.owner, self.path[-1], self.base)
        try:
            yield
        finally:
            _put(self.owner, self.path[-1], self.motivated)

    def __str__(self) -> str:
        return f"{self.name} ({_text(self.base)} in the base, {_text(self.motivated)} in the motivated model)"


def _put(owner: Any, key: Any, value: Any) -> None:
    if isinstance(owner, CellType):
        owner.cell_contents = value
    elif isinstance(owner, list):
        owner[key] = value
    elif isinstance(owner, dict):
        dict.__setitem__(owner, key, value)  # Configurations may refuse to be changed; these are copies.
    else:
        object.__setattr__(owner, key, value)


def _text(value: Any) -> str:
    return reprlib.repr(value) if _is_plain(value) else type(value).__name__


def differing_settings(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, views: Collection[Views]
) -> dict[str, Setting]:
    """By name, what is another in the base: attributes of shared modules, and of objects that these hold; no sizes.

    A module without tensors that is of another class is one, too. Rates of layers of dropout and stochastic depth are
    left out, since ``match`` compares them.

    Args:
        base: the smaller model.
        motivated: the larger model.
        weights_map: says which modules are shared.
        views: traces of both models, which tell sizes such as the number of heads.
    """
    modules = counterparts(base, motivated, weights_map)
    sizes = sizes_within(base, motivated, weights_map, views, modules)
    settings: dict[str, Setting] = {}
    for setting in _differing(base, motivated, modules):
        if not is_size(setting.base, setting.motivated, sizes[setting.module]):
            settings.setdefault(setting.name, setting)
    return settings


def _differing(base: nn.Module, motivated: nn.Module, modules: Mapping[str, str]) -> Iterator[Setting]:
    seen: set[tuple[int, int]] = set()
    for name, counterpart in modules.items():
        small, large = base.get_submodule(name), motivated.get_submodule(counterpart)
        yield from _differing_within(small, large, counterpart, (), seen)
        for child, other in registered_children(large).items():
            own = registered_children(small).get(child)
            if own is None or other is None or type(own) is type(other) or drops_out(own) or drops_out(other):
                continue
            if not tensors(own) and not tensors(other):
                yield Setting(counterpart, (child,), registered_children(large), copy.deepcopy(own), other)


def counterparts(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap) -> dict[str, str]:
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


def _differing_within(
    small: Any, large: Any, module: str, path: tuple[Any, ...], seen: set[tuple[int, int]]
) -> Iterator[Setting]:
    if len(path) >= DEPTH or small is large or (id(small), id(large)) in seen:
        return
    seen.add((id(small), id(large)))
    ours = {key: value for key, value, _ in _contents(small)}
    for key, other, owner in _contents(large):
        if key not in ours or key in MODULE_ATTRIBUTES or is_rate(large, key):
            continue
        own, place = ours[key], (*path, key)
        if not _is_plain(own) and not _is_plain(other):
            yield from _differing_within(own, other, module, place, seen)
        elif owner is not None and not _same(own, other):
            with contextlib.suppress(Exception):  # What cannot be copied is no setting.
                yield Setting(module, place, owner, copy.deepcopy(own), other)


def _is_plain(value: Any, depth: int = DEPTH) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return depth > 0 and all(_is_plain(part, depth - 1) for part in value)
    return isinstance(value, PLAIN)


def _same(own: Any, other: Any) -> bool:
    if not _is_plain(own) or not _is_plain(other):
        return False
    try:
        return bool(own == other) or bool(own != own and other != other)  # NaN is the same as NaN.
    except ValueError:  # NumPy compares a number with each of a list.
        return False


def _contents(value: Any) -> Iterator[tuple[Any, Any, Any]]:
    """What a value holds: its key there, the value, and the owner that may be given another; None for tuples."""
    if isinstance(value, functools.partial):
        value = value.keywords
    if isinstance(value, FunctionType):
        yield from closed_over(value)
        return
    if isinstance(value, list | tuple):
        yield from ((place, part, value if isinstance(value, list) else None) for place, part in enumerate(value))
        return
    if isinstance(value, dict):
        yield from ((key, part, value) for key, part in value.items())
    if isinstance(value, (Tensor, type, MethodType, np.ndarray, *PLAIN)):
        return
    own = getattr(value, "__dict__", {})
    yield from ((name, part, own) for name, part in own.items())
    of_class = [(name, part) for name, part in _class_settings(type(value)) if name not in own]
    slots = [(name, getattr(value, name)) for name in _slots(type(value)) if hasattr(value, name)]
    yield from ((name, part, value) for name, part in (*of_class, *slots))


def closed_over(function: FunctionType) -> Iterator[tuple[str, Any, CellType]]:
    """The variables that a function takes from the one around it: their names, values and cells."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # A cell that is still empty.
            yield name, cell.cell_contents, cell


def _class_settings(kind: type) -> list[tuple[str, Any]]:
    """Plain attributes of a class of the user's, which its objects have."""
    names = {
        name: value
        for each in reversed(kind.__mro__)
        if each.__module__.partition(".")[0] not in ("builtins", "torch", "typing", "collections")
        for name, value in vars(each).items()
        if _is_plain(value) and not name.startswith("__")
    }
    return list(names.items())


def _slots(kind: type) -> Iterator[str]:
    for each in kind.__mro__:
        slots = vars(each).get("__slots__", ())
        yield from (name for name in ([slots] if isinstance(slots, str) else slots) if not name.startswith("__"))
