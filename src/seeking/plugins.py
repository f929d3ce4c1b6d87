"""Packages of which each module adds something, such as a condition or a task: one file beside its siblings."""

import importlib
import pkgutil
import sys
from types import ModuleType


def modules_of(package: str) -> list[ModuleType]:
    """The modules of a package, imported now: each registers or defines what it adds."""
    names = [module.name for module in pkgutil.iter_modules(sys.modules[package].__path__)]
    return [importlib.import_module(f"{package}.{name}") for name in names]
