"""Saves a run as it is after a step."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from seeking.checkpointing.resume import Stateful
from seeking.checkpointing.saver import Saver, Weights
from seeking.errors import SeekingError, unknown
from seeking.training.config import TrainConfig
from seeking.training.evaluation import Scores
from seeking.training.record import Record
from seeking.training.run import Run


@dataclass(frozen=True)
class Save:
    """Saves the state of a run, and weights of its models.

    Attributes:
        run: the run.
        saver: writes it; without a folder, nothing is written.
        scores: with the metrics of the best weights.
        record: told of what is saved.
        parts: whose states are saved.
        config: options.
    """

    run: Run
    saver: Saver
    scores: Scores
    record: Record
    parts: Mapping[str, Stateful]
    config: TrainConfig

    def __call__(self, last: Iterable[str] = (), best: Iterable[str] = ()) -> None:
        """Save the run as it is after this step, and the last or best weights of these models.

        Raises:
            SeekingError: a name is not that of a model, or there are no best weights yet.
        """
        run, progress = self.run, self.run.progress
        weights = {**self._weights("last", last), **self._weights("best", best)}
        if not self.saver.folder:
            return
        sharded = [learner.module for learner in run.learners.values()] if self.config.shard else []
        weights_map = run.pair.map.as_dict() if run.pair_or_none else None
        about = {"options": self.config.recorded(), "map": weights_map, "step": progress.step}
        with run.synced("motivated"):
            saved = self.saver.save(about, self.parts, weights, sharded)
        if saved:
            self.record.notify({"kind": "saving", "step": progress.step, "path": self.saver.path})

    def _weights(self, kind: Literal["last", "best"], names: Iterable[str]) -> Weights:
        run, progress = self.run, self.run.progress
        position = {"epoch": progress.epoch, "step": progress.step}
        weights: Weights = {}
        for name in names:
            if name not in run.learners:
                raise unknown("model", name, run.learners)
            if kind == "best" and name not in self.scores.best:
                raise SeekingError(f"the {name} model has not been evaluated; save it as last, or evaluate first")
            metadata = position if kind == "last" else self.scores.best[name]
            weights[f"{name}.{kind}.safetensors"] = run.saved_parts[name], metadata
        return weights

    def now(self) -> bool:
        """Save the run and its last weights, and wait for it; returns whether it has a folder."""
        self(last=self.run.learners)
        self.saver.wait()
        return self.saver.folder is not None
