"""Classification of the rows of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seeking.data.batched import in_batches
from seeking.data.config import DataConfig
from seeking.data.select import NOT_USED, SET_ASIDE, SplitUse
from seeking.data.table import Rows, Table, read_table
from seeking.errors import SeekingError
from seeking.experiments.config import RunConfig
from seeking.experiments.tasks.base import RunLoaders, Task, TaskData, cut
from seeking.report.metric import ACCURACY
from seeking.training.objective import Classification, Objective

TEST = 0.2
"""Share of the rows, at random and the same for all seeds, that models are tested on."""


@dataclass(frozen=True)
class TableOfRun:
    """A table in parts, scaled by the training rows.

    Attributes:
        name: of the table.
        train: to train on.
        test: to evaluate on.
        aside: training rows for conditions; None if there are none.
        unused: number of test rows that are not used, since training rows are held out instead.
    """

    name: str
    train: Table
    test: Table
    aside: Table | None
    unused: int = 0
    unit: str = "rows"

    @property
    def train_samples(self) -> int:
        """Number of training rows."""
        return len(self.train)

    @property
    def example(self) -> Tensor:
        """Two rows, float32 ``[2, columns]``."""
        return self.train.values[:2]

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """Numbers of classes and columns."""
        return {"num_classes": len(self.train.classes), "in_features": self.train.values.shape[1]}

    @property
    def splits(self) -> tuple[SplitUse, ...]:
        """What each part of the table is used for."""
        parts = {"training": self.train, "test": self.test, SET_ASIDE: self.aside}
        source = f"rows of {self.name}"
        uses = [SplitUse(use, source, len(part.labels.unique()), len(part)) for use, part in parts.items() if part]
        return (*uses, *([SplitUse(NOT_USED, source, None, self.unused)] if self.unused else []))

    def describe(self) -> str:
        """Numbers of rows, columns and classes."""
        return (
            f"{len(self.train):,} training and {len(self.test):,} test rows of {self.train.values.shape[1]} columns, "
            f"{len(self.train.classes)} classes"
        )

    def loaders(self, config: RunConfig) -> RunLoaders:
        """The rows of each part."""
        size = max(256, config.batch_size)
        return RunLoaders(
            in_batches(Rows(self.train), config.batch_size, shuffle_seed=config.seed),
            in_batches(Rows(self.test), size),
            in_batches(Rows(self.aside), size) if self.aside else None,
        )

    def objective(self, config: RunConfig) -> Objective | None:
        """The Trainer's own classification."""
        return None

    def taught(self, config: RunConfig, weight: float, temperature: float) -> Objective:
        """Classification with a teacher."""
        return Classification(config.label_smoothing, weight, temperature)


def _load(config: DataConfig, sharing: int) -> TaskData:
    table = read_table(config.data)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
    rest, test = cut(order, round(len(order) * TEST))
    unused = 0
    if config.validation:
        unused = len(test)
        rest, test = cut(rest, round(len(rest) * config.validation))
    aside = None
    if config.held_out:
        rest, aside = cut(rest, config.held_out)
    rest, test = rest[: config.max_train_samples], test[: config.max_eval_samples]
    if not len(rest) or not len(test):
        raise SeekingError(
            f"{config.data}: of {len(table)} rows, {len(rest)} are left to train on and {len(test)} to test on; hold "
            "out fewer"
        )
    train = table.select(rest)
    kept = None if aside is None else table.select(aside).scaled_as(train)
    return TableOfRun(config.data, train.scaled_as(train), table.select(test).scaled_as(train), kept, unused)


TASK = Task("tabular", ACCURACY, _load)
