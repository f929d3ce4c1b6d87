"""Saves a run as it is after a step."""

from collections.abc import Iterable, Mapping

from seeking.checkpointing.resume import Stateful
from seeking.checkpointing.saver import Saver, weights_to_save
from seeking.training.config import TrainConfig
from seeking.training.evaluation import Scores
from seeking.training.record import Record
from seeking.training.run import Run


class Save:
    """Saves the state of a run, and weights of its models.

    Args:
        run: the run.
        saver: writes it; without a folder, nothing is written.
        scores: with the metrics of the best weights.
        record: told of what is saved.
        parts: whose states are saved.
        config: options.
    """

    def __init__(
        self,
        run: Run,
        saver: Saver,
        scores: Scores,
        record: Record,
        parts: Mapping[str, Stateful],
        config: TrainConfig,
    ) -> None:
        self._run, self._saver, self._scores = run, saver, scores
        self._record, self._parts, self._config = record, parts, config

    def __call__(self, last: Iterable[str] = (), best: Iterable[str] = ()) -> None:
        """Save the run as it is after this step, and the last or best weights of these models.

        Raises:
            SeekingError: a name is not that of a model, or there are no best weights yet.
        """
        run, progress = self._run, self._run.progress
        position = {"epoch": progress.epoch, "step": progress.step}
        weights = weights_to_save(dict.fromkeys(run.learners, position), last, self._scores.best, best, run.saved_parts)
        if not self._saver.folder:
            return
        sharded = [learner.module for learner in run.learners.values()] if self._config.shard else []
        weights_map = run.pair.map.as_dict() if run.pair_or_none else None
        about = {"options": self._config.recorded(), "map": weights_map, "step": progress.step}
        with run.synced("motivated"):
            saved = self._saver.save(about, self._parts, weights, sharded)
        if saved:
            self._record.notify({"kind": "saving", "step": progress.step, "path": self._saver.path})

    def now(self) -> bool:
        """Save the run and its last weights, and wait for it; returns whether it has a folder."""
        self(last=self._run.learners)
        self._saver.wait()
        return self._saver.folder is not None
