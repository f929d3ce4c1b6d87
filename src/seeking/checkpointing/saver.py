"""Saves a run in its folder, and reads it back; where there is no folder, nothing is written."""

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from seeking.checkpointing import snapshot
from seeking.checkpointing.fingerprint import decoded_otherwise, differences
from seeking.checkpointing.functions import changed_names
from seeking.checkpointing.metrics_log import MetricsLog
from seeking.checkpointing.resume import State, Stateful, capture_state, check_options, newest_state, restore_state
from seeking.checkpointing.run_dir import RunFolder
from seeking.checkpointing.writer import CheckpointWriter
from seeking.distributed.sharding import gather_full_tensors, reshard
from seeking.errors import RunError, RunWarning, SeekingError, naming
from seeking.supported import check_map
from seeking.weights_map import WeightsMap

DECODED_OTHERWISE = (
    "Only pixels differ, not the number of images, their size, labels or classes. If the files are unchanged, another "
    "version of seeking or of a decoder resizes or decodes them a little otherwise than when the run began"
)

Weights = dict[str, tuple[str, Mapping[str, Any]]]
"""By file name, the part with the model and the file's metadata."""


class Saver:
    """The saved state of a run, in the first of its processes; the others only read.

    Args:
        folder: of the run, if it has one.
        accelerator: that knows the processes.
        models: names of the models that are trained.
        every_steps: as the ``CheckpointWriter`` has it; so are the others.
        every_seconds: likewise.
        keep: likewise.
        data: the fingerprint of the run's data.
        functions: names of the user's functions in the run, by role.

    Attributes:
        metrics: where rows are written, if anywhere.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        accelerator: Accelerator,
        models: Sequence[str],
        *,
        every_steps: int | None,
        every_seconds: float | None,
        keep: int,
        data: Mapping[str, Any] | None = None,
        functions: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._accelerator, self._models, self._data = accelerator, models, data or {}
        self._functions = dict(functions or {})
        self._writer: CheckpointWriter | None = None
        self._map: WeightsMap | None = None
        self.metrics: MetricsLog | None = None
        if folder and accelerator.is_main_process:
            self._writer = CheckpointWriter(folder, every_steps, every_seconds, keep)
            self.metrics = folder.metrics

    def read_newest(
        self, options: Mapping[str, Any], changeable: frozenset[str], locating: frozenset[str]
    ) -> State | None:
        """The state of the run that the folder holds, if any.

        Args:
            options: of this trainer.
            changeable: names of those that may differ from the run's.
            locating: names of those that may differ as well if the data have a fingerprint, which tells them wherever
                they are now.

        Raises:
            SeekingError: no checkpoint is intact, or the run has other options or data.
        """
        if not self.folder or not self.folder.holds_run:
            return None
        with naming(f"{self.folder.path} cannot be resumed"):
            with self.folder if self._writer else contextlib.nullcontext():
                state = newest_state(self.folder, self._models)
            if state:
                check_options(options, state["options"], changeable | locating if state.get("data") else changeable)
                self._check_data(state.get("data"), bool(options.get("accept_changed_data")))
                changed = changed_names(state.get("functions"), self._functions) if self._writer else []
                if changed:
                    warnings.warn(f"{self.folder.path}: {'; '.join(changed)}", RunWarning, stacklevel=4)
        self._map = WeightsMap.from_dict(state["map"]) if state and state["map"] else None
        return state

    def map_of_run(
        self, base: nn.Module | None, motivated: nn.Module | None, given: WeightsMap | None
    ) -> WeightsMap | None:
        """The weights map of the run that is resumed, if it is one of a pair; else the one that is given.

        Raises:
            SeekingError: these are not the models of that run, or another map is given.
        """
        if self._map and base is not None and motivated is not None:
            try:
                self._map.check(base, motivated)
            except SeekingError as error:
                assert self.folder
                raise SeekingError(
                    f"{self.folder.path} cannot be resumed with these models: {error}. Give the models of that run, or "
                    "name another output folder"
                ) from error
            if given is not None:
                check_map(given)
            if different := given.difference(self._map) if given is not None else "":
                raise SeekingError(
                    f"the weights map is not that of the run that is resumed: {different}. Leave weights_map out to go "
                    "on with that of the run, or name another output folder"
                )
        return self._map or given

    def _check_data(self, saved: Any, accept: bool) -> None:
        differing = differences(saved, self._data)
        hint = [DECODED_OTHERWISE] if decoded_otherwise(differing, self._data) else []
        lines = gather_object([[*(f"  {each}" for each in differing), *hint]])[0]
        if lines and not accept:
            told = "\n".join(["the data are not those that it was trained on:", *lines])
            raise SeekingError(f"{told}\nGive those, or accept_changed_data to continue with these")

    def restore(self, parts: Mapping[str, Stateful], state: State) -> None:
        """Put every part where it was.

        Raises:
            SeekingError: the state is that of another run.
        """
        assert self.folder
        with naming(f"{self.folder.path} cannot be resumed"):
            restore_state(parts, state)

    def create(self, options: Mapping[str, Any], weights_map: WeightsMap | None) -> None:
        """Begin the run's record.

        Raises:
            SeekingError: the folder is taken or cannot be written.
        """
        if self._writer:
            self._writer.folder.create(options, weights_map)

    def reopen(self, step: int) -> None:
        """Take the folder again.

        Args:
            step: that the newest checkpoint must be of.

        Raises:
            SeekingError: the run in the folder is at another step, or another program trains in it.
        """
        if not self._writer:
            return
        folder = self._writer.folder
        folder.lock()
        checkpoints = folder.list_checkpoints()
        if not checkpoints or checkpoints[0].name != snapshot.name(step):
            raise SeekingError(
                f"{folder.path}: this trainer is at step {step}, and the newest checkpoint is "
                f"{checkpoints[0].name if checkpoints else 'gone'}; make a new Trainer with resume=True"
            )

    def rewind(self, step: int, metrics_bytes: int, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Cut the record back to where it was at a checkpoint; the last rows that remain.

        Raises:
            SeekingError: the metrics are damaged, or the folder cannot be written.
        """
        if not self._writer:
            return []
        self._writer.saved_step = step
        return self._writer.folder.reopen(options, metrics_bytes, self._map)

    def check_weights(self) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Of each model, the epoch and the metrics of its best weights; the models whose last weights are lost.

        Raises:
            SeekingError: a file cannot be read.
        """
        if not self._writer:
            return {}, []
        metrics = {name: self._writer.folder.best(name) for name in self._models}
        return {name: best for name, best in metrics.items() if best}, self._writer.folder.lost_weights(self._models)

    def due(self, step: int) -> bool:
        """Whether this process would save at this step."""
        return self._writer is not None and self._writer.due(step)

    @property
    def path(self) -> str:
        """Of the folder; empty if there is none."""
        return str(self.folder.path) if self.folder else ""

    def save(
        self,
        about: Mapping[str, Any],
        parts: Mapping[str, Stateful],
        weights: Weights,
        sharded: Sequence[nn.Module] = (),
    ) -> bool:
        """Write the state of a run and files of weights in the background; all processes must call this.

        Args:
            about: the run, with the ``step`` that it is at.
            parts: of the run.
            weights: files to write.
            sharded: models of which each process holds a shard.

        Returns:
            Whether this process writes.

        Raises:
            SeekingError: the state holds something that cannot be saved.
        """
        reshard(*sharded)
        metrics_bytes = self.metrics.size if self.metrics else 0
        own = {"data": self._data, "functions": self._functions, "metrics_bytes": metrics_bytes}
        state = capture_state(parts, {**about, **own})
        if sharded:
            state = gather_full_tensors(state, keep=self._writer is not None)
        if self._writer:
            self._writer.save(about["step"], state, weights)
        return self._writer is not None

    def wait(self) -> None:
        """Wait for what is being written.

        Raises:
            RunError: it could not be written.
        """
        if self._writer:
            self._writer.wait()

    def read_for_rollback(self) -> State:
        """The newest state of this run.

        Raises:
            RunError: there is none.
            SeekingError: none is intact.
        """
        assert self.folder
        with contextlib.suppress(RunError):
            self.wait()
        state = newest_state(self.folder, self._models)
        if state is None:
            raise RunError(f"{self.folder.path}: there is no checkpoint to roll back to")
        return state

    def describe(self, epoch: int) -> str:
        """What is saved of a run that has come so far, in words."""
        if not self.folder:
            return "nothing was saved"
        with contextlib.suppress(RunError):
            self.wait()
        checkpoints = self.folder.list_checkpoints()
        text = f"there is no checkpoint in {self.folder.path}"
        if checkpoints:
            text = f"the newest checkpoint is {checkpoints[0]}"
        return f"weights of epoch {epoch} are in {self.folder.path}, {text}" if epoch else text

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the run's summary.

        Raises:
            RunError: it cannot be written.
        """
        if self._writer:
            self._writer.folder.finish(summary)

    def close(self) -> None:
        """Leave the folder to others, once nothing is being written to it."""
        if self.folder:
            try:
                with contextlib.suppress(RunError):
                    self.wait()  # What is being written may be all that is left.
            finally:
                self.folder.close()
