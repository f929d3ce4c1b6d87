"""Tensors that a model's code keeps outside of the model: in caches of functions, module globals and class attributes.

A copy of the model shares them. What a run in another precision, or on the meta device, leaves there would damage the
user's own model.
"""

import contextlib
import functools
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from torch import nn

from seeking.weights_map import tensors_in

Caching = functools.lru_cache(lambda: None).__class__
MAPPINGS = (dict, OrderedDict, defaultdict)


@contextlib.contextmanager
def outside_preserved(*models: nn.Module) -> Iterator[None]:
    """On exit, what the code of these models has kept outside of them is as it was, as far as it holds tensors.

    Args:
        models: their classes, the base classes of these, the files that these are defined in, and those of functions
            that are used there are looked at.
    """
    classes = {each for model in models for module in model.modules() for each in type(module).__mro__}
    classes = {each for each in classes if _package(each) not in ("torch", "builtins", "typing")}
    names_of_files = {each.__module__ for each in classes}
    packages = {_package(each) for each in classes}
    for file in _loaded(names_of_files):
        functions = [value for value in vars(file).values() if callable(value)]
        names_of_files |= {each.__module__ for each in functions if _package(each) in packages}
    files = _loaded(names_of_files)
    owners = [(owner, dict(vars(owner))) for owner in (*files, *classes)]
    containers = {
        id(value): (value, list(value) if type(value) is list else dict(value))
        for _, names in owners
        for value in names.values()
        if type(value) in (list, *MAPPINGS)
    }
    caches = {
        id(function): (function, function.cache_info().misses)
        for _, names in owners
        for value in names.values()
        if isinstance(function := getattr(value, "__func__", value), Caching)
    }
    try:
        yield
    finally:
        for function, misses in caches.values():
            if function.cache_info().misses != misses:
                function.cache_clear()
        for value, before in containers.values():
            _restore(value, before)
        for owner, names in owners:
            for name, value in dict(vars(owner)).items():
                if value is names.get(name) or not tensors_in(value):
                    continue
                if name in names:
                    setattr(owner, name, names[name])
                else:
                    delattr(owner, name)


def _loaded(names: Iterable[str]) -> list[ModuleType]:
    return [sys.modules[name] for name in names if name in sys.modules]


def _package(value: Any) -> str:
    return str(getattr(value, "__module__", None)).partition(".")[0]


def _restore(value: Any, before: Any) -> None:
    """Take out of a container the tensors that it did not hold before."""
    if isinstance(value, list):
        known = set(map(id, before))
        if any(tensors_in(part) for part in value if id(part) not in known):
            value[:] = before
        return
    for key, part in list(value.items()):
        if (key not in before or part is not before[key]) and tensors_in(part):
            if key in before:
                value[key] = before[key]
            else:
                del value[key]
