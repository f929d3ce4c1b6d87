"""Experiment trackers, through accelerate, one file each."""

import functools
import importlib.util
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelerate.tracking import GeneralTracker

from seeking.checkpointing.run_dir import RunFolder
from seeking.choices import Tracker
from seeking.errors import RunWarning, SeekingError
from seeking.files import is_file, read_json, reading, reason
from seeking.option_types import check_word
from seeking.plugins import modules_of
from seeking.report.trackers.opened import Opened, TrackedRun, short_id
from seeking.training.record import Row

IDS = "trackers.json"
"""File of the run folder that holds the trackers' ids of the run."""


@functools.cache
def starters() -> Mapping[str, Callable[[TrackedRun], Opened]]:
    """What starts each tracker, by its name; every file in this package with a ``start`` adds one."""
    modules = [module for module in modules_of(__name__) if hasattr(module, "start")]
    return {module.__name__.rpartition(".")[2]: module.start for module in modules}


def check_trackers(names: Sequence[str]) -> None:
    """Make sure that the packages of these trackers are installed.

    Raises:
        SeekingError: one is not, or there is no such tracker.
    """
    for name in names:
        check_word("tracker", name, Tracker)
        if importlib.util.find_spec(name) is None:
            raise SeekingError(
                f"the tracker {name} needs the package {name}; install it with: pip install {name} (or all trackers, "
                "in the folder of seeking, with: pip install '.[trackers]')"
            )


class Tracking:
    """Passes the rows of a run to trackers, under the names of ``metrics.jsonl``; a listener, to be closed at the end.

    A run that is resumed goes on in the same run of each tracker. A tracker that fails while the run goes on is left
    out from then on, with a warning.

    Args:
        names: of the trackers.
        title: name of the run where it has no folder.
        folder: of the run, if any.
        options: recorded when the run begins.

    Raises:
        SeekingError: the package of a tracker is not installed.
    """

    def __init__(self, names: Sequence[str], title: str, folder: RunFolder | None, options: Mapping[str, Any]) -> None:
        check_trackers(names)
        self._names, self._folder, self._options = names, folder, options
        self._title = folder.path.resolve().name if folder else f"{title}-{short_id()}"
        self._ids: dict[str, str] = {}
        self._open: dict[str, GeneralTracker] = {}

    def __call__(self, row: Row) -> None:
        """Pass a row on."""
        if row["kind"] == "start":
            self._start(row.get("step"))
        elif row["kind"] in ("step", "eval"):
            values = numbers(row)
            self._call_each(lambda tracker: tracker.log(values, step=row["step"]))

    def close(self) -> None:
        """Finish the run of each tracker."""
        self._call_each(lambda tracker: tracker.finish())
        self._open.clear()

    def _start(self, step: int | None) -> None:
        """Open the trackers, at the beginning or at the step at which the run is resumed."""
        if step is not None and self._folder and self._names:
            self._ids |= _read_ids(self._folder)
        for name in self._names:
            known = self._ids.get(name)
            run = TrackedRun(self._title, known, self._folder.path if self._folder else None, step)
            try:
                tracker, self._ids[name] = starters()[name](run)
                if known is None:
                    tracker.store_init_configuration(_flat(self._options))
            except Exception as error:
                raise SeekingError(f"the tracker {name} cannot be started ({type(error).__name__}: {error})") from error
            self._open[name] = tracker
        if self._folder and self._names:
            try:
                self._folder.write_json(IDS, self._ids)
            except OSError as error:
                raise SeekingError(f"{self._folder.path / IDS}: cannot be written ({reason(error)})") from error

    def _call_each(self, do: Callable[[GeneralTracker], object]) -> None:
        for name, tracker in [*self._open.items()]:
            try:
                do(tracker)
            except Exception as error:
                warnings.warn(
                    f"the tracker {name} fails and is left out from now on ({type(error).__name__}: {error})",
                    RunWarning,
                    stacklevel=2,
                )
                del self._open[name]


def numbers(row: Row) -> dict[str, float]:
    """The numbers of a row by name; those of a model as ``base/accuracy``."""
    values: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            values |= {f"{name}/{key}": number for key, number in value.items()}
        elif isinstance(value, int | float) and name != "step":
            values[name] = value
    return values


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    plain = bool | int | float | str | None
    return {name: value if isinstance(value, plain) else json.dumps(value) for name, value in options.items()}


def _read_ids(folder: RunFolder) -> dict[str, str]:
    """The ids that the run had before; the folder can be a stranger's, so only what looks like one is taken."""
    path = folder.path / IDS
    with reading(path):
        try:
            content = read_json(path) if is_file(path) else {}
        except SeekingError as error:
            raise SeekingError(f"{error}; remove the file to begin new runs in the trackers") from error
    return {name: value for name, value in content.items() if re.fullmatch(r"[\w. -]{1,128}", str(value))}
