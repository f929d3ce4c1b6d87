"""The folder that a run writes.

config.json             the options of the run
map.json                the weights map
metrics.jsonl           a row for each batch and each evaluation, as they come
base.last.safetensors   weights; likewise base.best, motivated.last and motivated.best
checkpoints/            everything that decides the run's future, to resume from
summary.json            written at the end
"""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from seeking.checkpointing import snapshot
from seeking.checkpointing.metrics_log import MetricsLog
from seeking.checkpointing.weights import read_metadata
from seeking.errors import RunError, RunWarning, SeekingError
from seeking.files import write_json
from seeking.weights_map import WeightsMap

LOCK = ".lock"


class RunFolder:
    """A folder of one run, used by one program at a time.

    Args:
        path: must not hold anything yet; made, with its parents, when the run starts.
        overwrite: replace what another run left there.
        resume: continue the run that it holds; an empty folder is a run that has not begun.

    Raises:
        SeekingError: the folder holds something else, or something that no run has put there.
    """

    def __init__(self, path: str | Path, overwrite: bool = False, resume: bool = False) -> None:
        self.path = Path(path)
        if overwrite and resume:
            raise SeekingError("overwrite and resume contradict each other; give one of them")
        try:
            contents = self._contents()
        except OSError as error:
            raise SeekingError(f"{self.path}: cannot be used as an output folder ({error.strerror})") from error
        if contents and "config.json" not in contents and (overwrite or resume):
            raise SeekingError(
                f"{self.path} is not the folder of a run, so it is not {'resumed' if resume else 'overwritten'}"
            )
        if contents and not overwrite and not resume:
            raise self._taken()
        self.overwrite = overwrite
        self.holds_run = bool(contents) and resume
        self.checkpoints = self.path / "checkpoints"
        self.metrics = MetricsLog(self.path / "metrics.jsonl")
        self._lock = FileLock(self.path / LOCK)

    def lock(self) -> None:
        """Take the folder for this program, until ``close`` or the program's end.

        Raises:
            SeekingError: another program has it, or it cannot be written.
        """
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            links = [path for path in self.path.rglob("*") if path.is_symlink()]
            if links and not self.overwrite:
                raise SeekingError(f"{links[0]} is a link, which no run has put there; remove it to resume the run")
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise SeekingError(f"{self.path}: another program is training in this folder") from error

    def __enter__(self) -> "RunFolder":
        self.lock()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def create(self, config: Mapping[str, Any], weights_map: WeightsMap | None) -> None:
        """Begin the run's record.

        Raises:
            SeekingError: the folder is taken or cannot be written.
        """
        self.lock()
        with self._writing():
            if self._contents() and not self.overwrite and not self.holds_run:
                raise self._taken()  # Since it was looked at.
            folders = [path.name for path in self.path.iterdir() if path.is_dir() and path != self.checkpoints]
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

    def reopen(self, config: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
        """Continue the run's record where it was at a checkpoint.

        Args:
            config: the options from now on.
            size: length of ``metrics.jsonl`` at the checkpoint, in bytes; it is cut back to it.

        Returns:
            The rows of the metrics that remain.

        Raises:
            SeekingError: the metrics are damaged, or the folder cannot be written.
        """
        self.lock()
        with self._writing():
            self.write_json("config.json", config)
            return self.metrics.rewind(size)

    def close(self) -> None:
        """Leave the folder to others."""
        self.metrics.close()
        self._lock.release(force=True)  # However often it was taken.

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

    def newest_checkpoint(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The newest intact checkpoint, as it was written; None if there has been none.

        Damaged ones that are newer are set aside.

        Raises:
            SeekingError: all of them are damaged.
        """
        snapshot.prune(self.checkpoints)
        checkpoints = snapshot.list_checkpoints(self.checkpoints)
        leftovers = [*self.path.glob("*.safetensors"), *self.path.glob("summary.json")]
        if not checkpoints and leftovers:
            raise SeekingError(
                f"{leftovers[0].name} is there, but no checkpoint; overwrite the run or name another folder"
            )
        for path in checkpoints:
            try:
                return snapshot.read(path)
            except SeekingError as error:
                warnings.warn(f"{error}; it is set aside, and the one before is used", RunWarning, stacklevel=2)
                path.rename(_unused(path.with_name(f"damaged-{path.name}")))
        if checkpoints:
            raise SeekingError(
                f"{self.checkpoints}: none of {len(checkpoints)} checkpoints is intact; start anew in another folder, "
                "or overwrite this one"
            )
        return None

    def best(self, model: str) -> dict[str, Any]:
        """The epoch and metrics of a model's best weights, from their file; empty if it is missing or damaged."""
        path = self.path / f"{model}.best.safetensors"
        try:
            metadata = read_metadata(path)
        except SeekingError as error:
            warnings.warn(f"{error}; the best weights are looked for anew", RunWarning, stacklevel=2)
            return {}
        measured = {"epoch", "loss"} <= metadata.keys() and all(isinstance(v, int | float) for v in metadata.values())
        return metadata if measured else {}

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SeekingError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _contents(self) -> list[str]:
        if not self.path.exists():
            return []
        return [path.name for path in self.path.iterdir() if path.name != LOCK and not path.name.endswith(".writing")]

    def _taken(self) -> SeekingError:
        return SeekingError(
            f"{self.path} holds another run or files of yours; name another output folder, or resume the run"
        )


def _unused(path: Path) -> Path:
    number = 0
    while path.exists():
        number += 1
        path = path.with_name(f"{path.name.split('.')[0]}.{number}")
    return path
