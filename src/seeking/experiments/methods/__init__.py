"""Methods: the ways to train two sizes that experiments compare, one file each."""

import functools
import importlib
import pkgutil
from collections.abc import Mapping

from seeking.experiments.methods.base import Method, Stage, Start

__all__ = ["Method", "Stage", "Start", "methods"]


@functools.cache
def methods() -> Mapping[str, Method]:
    """The methods by name; every file in this package with a ``METHOD`` adds one."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return {module.METHOD.name: module.METHOD for module in modules if hasattr(module, "METHOD")}
