"""Classification of the rows of a table."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seeking.data.batched import in_batches
from seeking.data.config import DataConfig
from seeking.data.folders import shown
from seeking.data.labels import NAMED_CLASSES
from seeking.data.select import NOT_USED, SET_ASIDE, SplitUse
from seeking.data.table import Rows, Table, classes_of, prepared, read_tables, test_split_of
from seeking.data.table_columns import Preparation, read_classes
from seeking.errors import RunWarning, SeekingError
from seeking.experiments.config import RunConfig
from seeking.experiments.tasks.base import RunLoaders, Task, TaskData, cut
from seeking.report.metric import ACCURACY
from seeking.training.objective import Classification, Objective

TEST = 0.2
"""Share of the rows, at random and the same for all seeds, that models are tested on if there is no test split."""


@dataclass(frozen=True)
class TableOfRun:
    """A table in parts, prepared as the training rows say.

    Attributes:
        name: of the table.
        train: rows to train on.
        test: rows to evaluate on.
        aside: training rows for conditions, if there are any.
        splits: what each part of the table is used for.
        columns: number of columns, before they became numbers.
        unit: what the samples are.
    """

    name: str
    train: Table
    test: Table
    aside: Table | None
    splits: tuple[SplitUse, ...]
    columns: int
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

    def describe(self) -> str:
        """Numbers of rows, columns and classes."""
        width = self.train.values.shape[1]
        as_numbers = "" if width == self.columns else f" ({width} numbers)"
        return (
            f"{len(self.train):,} training and {len(self.test):,} test rows of {self.columns} columns{as_numbers}, "
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
    splits, label = read_tables(config)
    train, unused = splits.pop("train"), splits
    chosen = test_split_of(splits, label)
    test = splits.pop(chosen) if chosen else None
    if config.test_split and test is None:
        raise SeekingError(
            f"data set {config.data}: {config.test_split} has no classes (column {label}); name another split with "
            "test_split, or hold rows out of the training split with validation"
        )
    names = read_classes(train, label)
    classes = classes_of(names, read_classes(test, label) if test else [], config.data)
    train_rows, test_rows, aside_rows, unused_rows = _parts(len(train), None if test is None else len(test), config)
    left = train.select(train_rows)
    preparation = Preparation.fit(left, label, classes, config.ignore_columns, config.category_columns)
    source = f"rows of {train.source}"
    if test is None or config.validation:
        evaluated, test_source = train, f"{source}, held out"
        unused |= {"test": test} if test is not None else {}
    else:
        evaluated, test_source = test, f"rows of {test.source}"
    parts = [prepared(left, preparation), prepared(evaluated.select(test_rows), preparation)]
    lost = {*parts[1].labels.tolist()} - {*parts[0].labels.tolist()}
    if lost:
        warnings.warn(
            f"{config.data}: {len(lost):,} of {len(classes):,} classes have no training rows: "
            f"{shown([classes[number] for number in sorted(lost)], NAMED_CLASSES)}",
            RunWarning,
            stacklevel=2,
        )
    uses = [
        SplitUse.of("training", source, parts[0].labels),
        SplitUse.of("test", test_source, parts[1].labels),
        *(SplitUse(NOT_USED, rows.source, None, len(rows)) for rows in unused.values()),
    ]
    if unused_rows:
        uses.append(SplitUse(NOT_USED, source, None, unused_rows))
    aside = None
    if aside_rows is not None:
        aside = prepared(train.select(aside_rows), preparation)
        uses.append(SplitUse.of(SET_ASIDE, source, aside.labels))
    return TableOfRun(config.data, parts[0], parts[1], aside, tuple(uses), len(preparation.columns))


def _parts(rows: int, test_rows: int | None, config: DataConfig) -> tuple[Tensor, Tensor, Tensor | None, int]:
    """Which rows are trained on, which tested on (of the training split if there is no other), which set aside.

    The last is the number of rows of the training split that would be tested on if none were held out of the others.
    """

    def in_random_order(count: int) -> Tensor:
        return torch.randperm(count, generator=torch.Generator().manual_seed(0))

    rest, unused = in_random_order(rows), 0
    if test_rows is None:
        rest, test = cut(rest, round(rows * TEST))
    else:
        test = in_random_order(test_rows)
    if config.validation:
        unused = len(test) if test_rows is None else 0
        rest, test = cut(rest, round(len(rest) * config.validation))
    aside = None
    if config.held_out:
        rest, aside = cut(rest, config.held_out)
    rest, test = rest[: config.max_train_samples], test[: config.max_eval_samples]
    if not len(rest) or not len(test):
        raise SeekingError(
            f"{config.data}: of {rows} rows, {len(rest)} are left to train on and {len(test)} to test on; hold "
            "out fewer"
        )
    return rest, test, aside, unused


TASK = Task("tabular", ACCURACY, _load)
