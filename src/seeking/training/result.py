"""Results of a run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from seeking.training.cost import Cost
from seeking.training.record import Row


@dataclass
class Result:
    """Results of a run.

    Attributes:
        metrics: metrics of each model on the evaluation data after the last epoch: ``loss`` and, for classification,
            ``accuracy`` in [0, 1].
        best: the same at the best epoch of each model (highest accuracy, else lowest loss), with the ``epoch``.
        cost: FLOPs of the run.
        seconds: training time without evaluation, for each model and in ``total``.
        rows: gives all rows of ``metrics.jsonl``, one by one from the file. In processes other than the first, only the
            last ones since the last resume.
    """

    metrics: dict[str, dict[str, float]]
    best: dict[str, dict[str, float]]
    cost: Cost
    seconds: dict[str, float]
    rows: Callable[[], Iterable[Row]] = field(repr=False)

    def __post_init__(self) -> None:
        self.seconds = {**self.seconds, "total": sum(self.seconds.values())}

    @property
    def history(self) -> list[Row]:
        """All rows in a list, read from the file each time.

        Raises:
            SeekingError: the file cannot be read.
        """
        return [*self.rows()]

    def summary(self) -> dict[str, Any]:
        """Everything but the history, and the versions of seeking and torch, as JSON-serializable values."""
        return {
            "metrics": self.metrics,
            "best": self.best,
            "cost": self.cost.report(),
            "seconds": self.seconds,
            "versions": {"seeking": version("seeking"), "torch": torch.__version__},
        }
