"""What a run gave."""

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from seeking.training.cost import Cost
from seeking.training.record import Row


@dataclass
class Result:
    """What a run gave.

    Attributes:
        metrics: of each model, on the evaluation data, after the last epoch; ``loss`` and, for classification,
            ``accuracy`` (a share).
        best: the same at each model's own best epoch (highest accuracy, else lowest loss), with the ``epoch``.
        cost: FLOPs.
        seconds: of training, without evaluation, for each model and in ``total``.
        history: every row of ``metrics.jsonl`` (in processes but the first, those since the run was resumed).
    """

    metrics: dict[str, dict[str, float]]
    best: dict[str, dict[str, float]]
    cost: Cost
    seconds: dict[str, float]
    history: list[Row] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """Everything but the history, as JSON-serialisable values, and the versions it was made with."""
        return {
            "metrics": self.metrics,
            "best": self.best,
            "cost": self.cost.report(),
            "seconds": self.seconds,
            "versions": {"seeking": version("seeking"), "torch": torch.__version__},
        }
