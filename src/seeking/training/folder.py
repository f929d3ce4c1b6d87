"""The folder that a run writes.

config.json             the options of the run
map.json                the weights map
metrics.jsonl           a row for each batch and each evaluation, as they come
base.last.safetensors   weights; likewise base.best, motivated.last and motivated.best
checkpoints/            everything that decides the run's future, to go on from
summary.json            written at the end
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from seeking.errors import RunError, RunWarning, SeekingError
from seeking.files import open_file, write_json
from seeking.training import checkpoint
from seeking.weights_files import read_about
from seeking.weights_map import WeightsMap

LOCK = ".lock"
LONGEST_ROW = 1 << 20
"""Characters of a row of the metrics that are read."""


class RunFolder:
    """A folder of one run, in the hands of one program at a time.

    Args:
        path: must not hold anything yet; made, with its parents, when the run starts.
        overwrite: replace what another run left there.
        resume: go on with the run that it holds; nothing there is a run that has not begun.

    Raises:
        SeekingError: the folder holds something else, or something that no run has put there.
    """

    def __init__(self, path: str | Path, overwrite: bool = False, resume: bool = False) -> None:
        self.path = Path(path)
        if overwrite and resume:
            raise SeekingError("overwrite and resume contradict each other; give one of them")
        try:
            there = self._contents()
        except OSError as error:
            raise SeekingError(f"{self.path}: cannot be used as an output folder ({error.strerror})") from error
        if there and "config.json" not in there and (overwrite or resume):
            raise SeekingError(
                f"{self.path} is not the folder of a run, so it is not {'resumed' if resume else 'overwritten'}"
            )
        if there and not overwrite and not resume:
            raise self._taken()
        self.overwrite = overwrite
        self.holds_run = bool(there) and resume
        self.checkpoints = self.path / "checkpoints"
        self._lock = FileLock(self.path / LOCK)
        self._metrics: int | None = None
        self._written = 0
        self._pending = b""

    def lock(self) -> None:
        """Take the folder for this program, until ``close`` or the program's end.

        Raises:
            SeekingError: another program has it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            links = [one for one in self.path.rglob("*") if one.is_symlink()]
            if links and not self.overwrite:
                raise SeekingError(f"{links[0]} is a link, which no run has put there; remove it to resume the run")
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise SeekingError(f"{self.path}: another program is training in this folder") from error
        except OSError as error:
            raise SeekingError(f"{self.path}: cannot be written ({error.strerror})") from error

    def __enter__(self) -> "RunFolder":
        self.lock()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def create(self, config: Mapping[str, Any], weights_map: WeightsMap | None) -> None:
        """Begin the run's record."""
        self.lock()
        try:
            if self._contents() and not self.overwrite and not self.holds_run:
                raise self._taken()  # Since it was looked at.
            folders = [one.name for one in self.path.iterdir() if one.is_dir() and one != self.checkpoints]
            if folders and not self.overwrite:
                raise SeekingError(
                    f"{self.path} holds folders that no single run has put there ({', '.join(sorted(folders)[:3])}); "
                    "a comparison is resumed by seeking compare"
                )
            for path in self.path.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
            self.write_json("config.json", config)
            if weights_map:
                weights_map.save(self.path / "map.json")
        except OSError as error:
            raise SeekingError(f"{self.path}: cannot be written ({error.strerror})") from error

    def close(self) -> None:
        """Leave the folder to others."""
        if self._metrics is not None:
            os.close(self._metrics)
            self._metrics = None
        self._lock.release(force=True)  # However often it was taken.

    def _contents(self) -> list[str]:
        if not self.path.exists():
            return []
        return [one.name for one in self.path.iterdir() if one.name != LOCK and not one.name.endswith(".writing")]

    def _taken(self) -> SeekingError:
        return SeekingError(
            f"{self.path} holds another run or files of yours; name another output folder, or resume the run"
        )

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to ``metrics.jsonl``; while it cannot be written, rows wait in memory."""
        waiting = len(self._pending)
        self._pending += (json.dumps(row) + "\n").encode()
        try:
            if self._metrics is None:
                self._metrics = os.open(self.path / "metrics.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            count = os.write(self._metrics, self._pending)
        except OSError as error:
            if not waiting:
                warnings.warn(
                    f"{self.path / 'metrics.jsonl'}: cannot be written ({error.strerror}); the rows wait in memory",
                    RunWarning,
                    stacklevel=2,
                )
        else:
            self._written += count
            self._pending = self._pending[count:]

    @property
    def metrics_bytes(self) -> int:
        """Length of ``metrics.jsonl`` once all rows are in it."""
        return self._written + len(self._pending)

    def flush_metrics(self) -> None:
        """Wait until the rows are on the disk."""
        if self._metrics is not None:
            os.fsync(self._metrics)

    def go_on(self, config: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
        """Go on with the run's record where it was at a checkpoint.

        Args:
            config: the options from now on.
            size: length of ``metrics.jsonl`` at the checkpoint, in bytes; it is cut back to it.

        Returns:
            The rows of the metrics that remain.

        Raises:
            SeekingError: the metrics are damaged, or the folder cannot be written.
        """
        self.lock()
        try:
            self.write_json("config.json", config)
            return self._rewound(size)
        except OSError as error:
            raise SeekingError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _rewound(self, size: int) -> list[dict[str, Any]]:
        path = self.path / "metrics.jsonl"
        there = path.stat().st_size if path.exists() else 0
        if there < size:
            warnings.warn(
                f"{path}: rows are missing ({there:,} bytes of {size:,}); the run goes on without them",
                RunWarning,
                stacklevel=2,
            )
        if path.exists():
            with path.open("rb+") as file:
                start = max(0, min(there, size) - LONGEST_ROW)
                file.seek(start)
                file.truncate(start + file.read(min(there, size) - start).rfind(b"\n") + 1)
                self._written = file.tell() if there >= size else file.seek(0, os.SEEK_END)
        return list(read_rows(path)) if path.exists() else []

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file for people.

        Raises:
            OSError: it cannot be written.
        """
        write_json(self.path / name, content)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the run's summary.

        Raises:
            RunError: it cannot be written.
        """
        try:
            self.write_json("summary.json", summary)
        except OSError as error:
            raise RunError(f"{self.path / 'summary.json'}: cannot be written ({error.strerror})") from error

    def newest(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The newest whole checkpoint, as ``write`` was given it; None if there has been none.

        Damaged ones that are newer are set aside.

        Raises:
            SeekingError: all of them are damaged.
        """
        checkpoint.tidy(self.checkpoints)
        there = checkpoint.found(self.checkpoints)
        if not there and (left := [*self.path.glob("*.safetensors"), *self.path.glob("summary.json")]):
            raise SeekingError(f"{left[0].name} is there, but no checkpoint; overwrite the run or name another folder")
        for path in there:
            try:
                return checkpoint.read(path)
            except SeekingError as error:
                warnings.warn(f"{error}; it is set aside, and the one before is taken", RunWarning, stacklevel=2)
                path.rename(_unused(path.with_name(f"damaged-{path.name}")))
        if there:
            raise SeekingError(
                f"{self.checkpoints}: none of {len(there)} checkpoints is whole; start anew in another folder, or "
                "overwrite this one"
            )
        return None

    def best(self, model: str) -> dict[str, Any]:
        """What the file of a model's best weights says of them; nothing if it is missing or damaged."""
        path = self.path / f"{model}.best.safetensors"
        try:
            about = read_about(path)
        except SeekingError as error:
            warnings.warn(f"{error}; the best weights are looked for anew", RunWarning, stacklevel=2)
            return {}
        measured = {"epoch", "loss"} <= about.keys() and all(isinstance(v, int | float) for v in about.values())
        return about if measured else {}


def _unused(path: Path) -> Path:
    number = 0
    while path.exists():
        number += 1
        path = path.with_name(f"{path.name.split('.')[0]}.{number}")
    return path


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``.

    Raises:
        SeekingError: it cannot be read, or a line is no row.
    """
    try:
        with open_file(path) as file:
            number = 0
            while line := file.readline(LONGEST_ROW):
                number += 1
                try:
                    row = json.loads(line)
                    if not (isinstance(row, dict) and isinstance(row["kind"], str)):
                        raise ValueError("no row of metrics")
                except (ValueError, KeyError, RecursionError) as error:
                    raise SeekingError(
                        f"{path}, line {number}: damaged ({error}); move the file away to go on without these rows"
                    ) from error
                yield row
    except OSError as error:
        raise SeekingError(f"{path}: cannot be read ({error.strerror})") from error
