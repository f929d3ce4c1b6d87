"""Tasks: the kinds of data that runs and experiments know, one file each."""

import functools
import importlib
import pkgutil
from collections.abc import Mapping

from seeking.errors import unknown
from seeking.experiments.tasks.base import RunLoaders, Task, TaskData

__all__ = ["RunLoaders", "Task", "TaskData", "task", "tasks"]


@functools.cache
def tasks() -> Mapping[str, Task]:
    """The tasks by name; every file in this package with a ``TASK`` adds one."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return {module.TASK.name: module.TASK for module in modules if hasattr(module, "TASK")}


def task(name: str) -> Task:
    """A task by name.

    Raises:
        SeekingError: it does not exist.
    """
    if name not in tasks():
        raise unknown("task", name, tasks())
    return tasks()[name]
