"""Tasks: the kinds of data that runs and experiments know, one file each."""

import functools
from collections.abc import Mapping

from seeking.errors import unknown
from seeking.experiments.tasks.base import RunLoaders, Task, TaskData
from seeking.plugins import modules_of

__all__ = ["RunLoaders", "Task", "TaskData", "task", "tasks"]


@functools.cache
def tasks() -> Mapping[str, Task]:
    """The tasks by name; every file in this package with a ``TASK`` adds one."""
    return {module.TASK.name: module.TASK for module in modules_of(__name__) if hasattr(module, "TASK")}


def task(name: str) -> Task:
    """A task by name.

    Raises:
        SeekingError: it does not exist.
    """
    if name not in tasks():
        raise unknown("task", name, tasks())
    return tasks()[name]
