"""The folder that a run writes.

config.json             the options of the run
map.json                the weights map
metrics.jsonl           a row for each batch and each evaluation, as they come
base.last.safetensors   weights; likewise base.best, motivated.last and motivated.best
checkpoints/            everything that decides the run's future, to resume from
summary.json            written at the end
curves.png              the learning curves
trackers.json           the ids of the run in experiment trackers; tensorboard/ holds what TensorBoard reads
manifest.json           marks the folder as a run's, and lists the finished files with their checksums
"""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from seeking.checkpointing import run_files, snapshot
from seeking.checkpointing.foreign_weights import EXTRA_STATE
from seeking.checkpointing.made import Made
from seeking.checkpointing.manifest import NAME, Kind, Manifest, check_file
from seeking.checkpointing.metrics_log import MetricsLog
from seeking.checkpointing.place import Place
from seeking.checkpointing.weights import read_metadata, write_tensors
from seeking.errors import DamagedError, RunError, RunWarning, SeekingError
from seeking.files import atomic_write, is_file, reading, reason, status, user_path, writing
from seeking.weights_map import WeightsMap


class RunFolder:
    """A folder of one run, used by one program at a time.

    Only files that this program has written are ever deleted.

    Args:
        path: must not hold anything yet; made, with its parents, when the run starts.
        overwrite: replace what another run left there.
        resume: continue the run that it holds; an empty folder is a run that has not begun.
        kind: whether it is the folder of a run, or of a comparison with its runs.

    Raises:
        SeekingError: the folder holds something else, or something that no run has put there.
    """

    def __init__(self, path: str | Path, overwrite: bool = False, resume: bool = False, kind: Kind = "run") -> None:
        self.path = user_path(path).absolute()  # Code of the user may change the working folder.
        if overwrite and resume:
            raise SeekingError("overwrite and resume contradict each other; give one of them")
        try:
            taken = run_files.is_taken(self.path)
            known = taken and (overwrite or resume) and run_files.is_run(self.path)
        except OSError as error:
            raise SeekingError(f"{self.path}: cannot be used as an output folder ({reason(error)})") from error
        if taken and not known and (overwrite or resume):
            raise SeekingError(
                f"output {self.path}: not the folder of a run, so it is not {'resumed' if resume else 'overwritten'}"
            )
        if taken and not known:
            raise self._taken()
        self.overwrite = overwrite
        self.holds_run = taken and resume
        self.checkpoints = self.path / run_files.CHECKPOINTS
        self.place = Place(self.path, run_files.LOCK)
        self.metrics = MetricsLog(self.path / "metrics.jsonl", self.place)
        self._lock = FileLock(self.path / run_files.LOCK)
        self._manifest = Manifest(self.path, kind, ready=self.place.check)
        self._made = Made()

    def lock(self) -> None:
        """Take the folder for this program, until ``close`` or the program's end.

        Raises:
            SeekingError: another program has it, or it cannot be written.
        """
        with self._writing():
            try:
                self._made.make_folder(self.path)
                links = run_files.links(self.path)
                if links:
                    raise SeekingError(f"{links[0]} is a link, which no run has put there; remove it")
                locked_before = status(self.place.lock) is not None
                self._lock.acquire(timeout=0)
            except BaseException as error:
                if not self.place.taken:
                    self._made.take_back()
                if isinstance(error, Timeout):
                    raise SeekingError(f"{self.path}: another program is training in this folder") from error
                raise
            if not locked_before:
                self._made.add(self.place.lock)
            if not self.place.taken:
                self.place.take()
                run_files.delete([path for path in self.path.iterdir() if run_files.is_leftover(path)])
                snapshot.prune(self.checkpoints)

    def __enter__(self) -> "RunFolder":
        self.lock()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def create(self, config: Mapping[str, Any], weights_map: WeightsMap | None) -> None:
        """Begin the run's record. If that fails in a folder that held nothing, what has been made goes again.

        Raises:
            SeekingError: the folder is taken or cannot be written.
        """
        self.lock()
        with self._writing(), self._taken_back_on_error():
            if run_files.is_taken(self.path) and not self.overwrite and not self.holds_run:
                raise self._taken()  # Since it was looked at.
            own, others = run_files.sort(self.path)
            own_folders = (run_files.CHECKPOINTS, run_files.TENSORBOARD)
            folders = [path.name for path in own if path.is_dir() and path.name not in own_folders]
            if others and self.overwrite:
                raise SeekingError(f"{others[0]} is no file of a run, so {self.path} is not overwritten; move it away")
            replaces = self.overwrite and self._manifest.kind == "comparison"
            if [name for name in folders if not name.endswith(".writing")] and not replaces:
                raise SeekingError(
                    f"{self.path} holds folders that no single run has put there ({', '.join(folders[:3])}); "
                    "a comparison is resumed and replaced by seeking compare"
                )
            self._manifest.write()  # First, so that the folder is known as a run's wherever this is interrupted.
            kept = (run_files.LOCK, self._manifest.path.name)
            run_files.delete([path for path in own if path.name not in kept])
            self.write_json("config.json", config)
            if weights_map:
                self.write_file("map.json", weights_map.save)

    def reopen(
        self, config: Mapping[str, Any], size: int, weights_map: WeightsMap | None = None
    ) -> list[dict[str, Any]]:
        """Continue the run's record where it was at a checkpoint.

        Args:
            config: the options from now on.
            size: length of ``metrics.jsonl`` at the checkpoint, in bytes; it is cut back to it.
            weights_map: of the run; written if its file is lost.

        Returns:
            The last rows of the metrics that remain.

        Raises:
            SeekingError: the metrics are damaged, or the folder cannot be written.
        """
        self.lock()
        with self._writing():
            self.read_manifest()
            self._forget_strange()
            self._manifest.forget(run_files.GROWING)  # They will be finished anew.
            self.write_json("config.json", config)
            if weights_map and (self._is_lost("map.json") or not is_file(self.path / "map.json")):
                self.write_file("map.json", weights_map.save)
            self._list_unlisted()
            return self.metrics.rewind(size)

    def read_manifest(self) -> None:
        """Go on with the manifest of the run; one that is damaged or, in folders of older versions, missing is made
        anew.

        Raises:
            OSError: it cannot be read or written.
        """
        try:
            manifest = Manifest.read(self.path, self.place.check)
        except DamagedError as error:
            warnings.warn(f"{error}; it is made anew", RunWarning, stacklevel=2)
            manifest = None
        if manifest:
            self._manifest = manifest
        else:
            self._manifest.write()

    def _forget_strange(self) -> None:
        """No longer list what no file of a run is called, and what would be missing for ever.

        Raises:
            OSError: the manifest cannot be written.
        """
        if names := run_files.strange(self._manifest):
            warnings.warn(
                f"{self.path}: the manifest lists {', '.join(names)}, which no run writes; it is listed no more",
                RunWarning,
                stacklevel=2,
            )
            self._manifest.forget(names)

    def _list_unlisted(self) -> None:
        """List finished files that a lost manifest had, and that are not made again.

        Raises:
            OSError: the manifest cannot be written.
        """
        made_again = "last.safetensors"
        unlisted = [name for name in run_files.unlisted(self.path, self._manifest) if not name.endswith(made_again)]
        for name in unlisted:
            self._manifest.announce(name, self.path / name)
        if unlisted:
            warnings.warn(
                f"{self.path}: the manifest lists {', '.join(unlisted)} from now on, as they are; whether they are "
                "intact is not known",
                RunWarning,
                stacklevel=2,
            )

    def close(self) -> None:
        """Leave the folder to others."""
        self.metrics.close()
        self._lock.release(force=True)  # However often it was taken.
        self.place.leave()

    def write_file(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file atomically and list it in the manifest.

        Args:
            name: of the file.
            write: writes it to the path that it is given.

        Raises:
            OSError: it cannot be written.
            RunError: the folder was moved.
        """
        self.place.check()
        with atomic_write(self.path / name, lambda temporary: self._announce(name, temporary)) as temporary:
            write(temporary)
        self._manifest.settle(name)
        self._manifest.write()

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file for people, as ``write_file`` does."""
        text = json.dumps(content, indent=2, default=str) + "\n"
        self.write_file(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_weights(self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Write a file of weights, as ``write_tensors`` does.

        Raises:
            RunError: it cannot be written, or the folder was moved.
        """
        self.place.check()
        write_tensors(tensors, self.path / name, metadata, lambda temporary: self._announce(name, temporary))
        self._manifest.settle(name)

    def _announce(self, name: str, temporary: Path) -> None:
        self.place.check()
        self._manifest.announce(name, temporary)
        self.place.check()

    def write_checkpoint(self, step: int, state: Any, tensors: Mapping[str, Tensor], keep: int | None) -> None:
        """Write the checkpoint of a step, unless it is there, and delete those that are no longer kept.

        Raises:
            OSError, SafetensorError: it cannot be written.
            RunError: the state is too large, or the folder was moved.
        """
        if status(self.checkpoints / snapshot.name(step)):
            return
        with self.place.open() as folder, suppress(FileExistsError):
            os.mkdir(run_files.CHECKPOINTS, dir_fd=folder)
        snapshot.write(self.checkpoints, step, state, tensors, self.place.check)
        self.place.check()
        snapshot.prune(self.checkpoints, keep)

    def list_checkpoints(self) -> list[Path]:
        """The checkpoints, the newest first.

        Raises:
            SeekingError: their folder cannot be read.
        """
        with reading(self.checkpoints):
            return snapshot.list_checkpoints(self.checkpoints)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the run's summary.

        Raises:
            RunError: it cannot be written.
        """
        with writing(self.path / "summary.json"):
            if status(self.metrics.path):
                self._announce(self.metrics.path.name, self.metrics.path)
            self.write_json("summary.json", summary)

    def newest_checkpoint(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The newest intact checkpoint, as it was written; None if there has been none.

        Damaged ones that are newer are set aside.

        Raises:
            SeekingError: all of them are damaged, or one cannot be read; nothing was changed.
        """
        checkpoints, damaged = self.list_checkpoints(), []
        for path in checkpoints:
            try:
                content = snapshot.read(path)
            except DamagedError as error:
                damaged.append((path, error))
                continue
            for broken, cause in damaged:
                warnings.warn(f"{cause}; it is set aside, and the one before is used", RunWarning, stacklevel=2)
                with self._writing():
                    snapshot.set_aside(broken)
            return content
        with self._writing():
            lost = [*snapshot.list_damaged(self.checkpoints), *self.path.glob("*.safetensors")]
            lost += self.path.glob("summary.json")
        if checkpoints:
            causes = "\n".join(f"  {error}" for _, error in damaged)
            raise SeekingError(
                f"{self.checkpoints}: none of {len(checkpoints)} checkpoints is intact; start anew in another folder, "
                f"or overwrite this one\n{causes}"
            )
        if lost:
            raise SeekingError(f"{lost[0].name} is there, but no checkpoint; overwrite the run or name another folder")
        return None

    def best(self, model: str) -> dict[str, Any]:
        """The epoch and metrics of a model's best weights, from their file; empty if there are none.

        A file that is damaged is set aside.

        Raises:
            SeekingError: the file cannot be read.
        """
        path = self.path / f"{model}.best.safetensors"
        try:
            check_file(path)
            metadata = {key: value for key, value in read_metadata(path).items() if key != EXTRA_STATE}
        except DamagedError as error:
            warnings.warn(f"{error}; the best weights are looked for anew", RunWarning, stacklevel=2)
            with self._writing():
                if is_file(path):
                    path.replace(path.with_name(f"damaged-{path.name}"))
                self._manifest.forget([path.name])
            return {}
        measured = {"epoch", "loss"} <= metadata.keys() and all(isinstance(v, int | float) for v in metadata.values())
        return metadata if measured else {}

    def lost_weights(self, models: Iterable[str]) -> list[str]:
        """The models whose last weights are listed and are missing or damaged, or are there and not listed.

        Raises:
            SeekingError: a file cannot be read.
        """
        return [model for model in models if self._is_lost(f"{model}.last.safetensors")]

    def _is_lost(self, name: str) -> bool:
        path = self.path / name
        try:
            with reading(path):
                if not check_file(path) and is_file(path):
                    raise DamagedError(f"{path}: not listed in {NAME}, which would tell whether it is intact")
        except DamagedError as error:
            warnings.warn(f"{error}; it is made again from the checkpoint", RunWarning, stacklevel=2)
            return True
        return False

    @contextmanager
    def _taken_back_on_error(self) -> Iterator[None]:
        """What this program has made goes again if an error ends what is inside, unless the folder held something."""
        fresh = not run_files.is_taken(self.path)
        if fresh:
            self._made.add(*(self.path / name for name in (NAME, "config.json", "map.json")))
        try:
            yield
        except BaseException:
            with suppress(OSError, RunError):
                self.place.check()  # Nothing is deleted in a folder that is another one by now.
                if fresh:
                    self._made.take_back()
                    self.close()
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SeekingError(f"{self.path}: cannot be written ({reason(error)})") from error

    def _taken(self) -> SeekingError:
        return SeekingError(
            f"{self.path} holds another run or files of yours; name another output folder, set resume to continue the "
            "run in it, or set overwrite to replace it (of the Trainer, output=seeking.training.RunFolder(folder, "
            "overwrite=True))"
        )
