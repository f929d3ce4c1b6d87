"""Methods: the ways to train two sizes that experiments compare, one file each."""

import functools
from collections.abc import Mapping

from seeking.experiments.methods.base import Method, Stage, Start
from seeking.plugins import modules_of

__all__ = ["Method", "Stage", "Start", "methods"]


@functools.cache
def methods() -> Mapping[str, Method]:
    """The methods by name; every file in this package with a ``METHOD`` adds one."""
    return {module.METHOD.name: module.METHOD for module in modules_of(__name__) if hasattr(module, "METHOD")}
