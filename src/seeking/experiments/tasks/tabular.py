"""Tables: classes of rows, or values."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seeking.choices import Loss
from seeking.data.batched import in_batches
from seeking.data.config import DataConfig
from seeking.data.folders import shown
from seeking.data.labels import NAMED_CLASSES
from seeking.data.row_index import read_again
from seeking.data.split_use import NOT_USED, SET_ASIDE, SplitUse
from seeking.data.table import TABLES, Rows, Table, prepared, read_tables, test_split_of
from seeking.data.table_columns import Preparation
from seeking.data.table_files import RawRows
from seeking.data.table_targets import Targets
from seeking.errors import RunWarning, SeekingError
from seeking.experiments.config import RunConfig
from seeking.experiments.tasks.base import OF_SOURCES, RunLoaders, Samples, Task, TaskData, cut
from seeking.report.metric import ACCURACY, RMSE
from seeking.training.objective import Classification, Objective
from seeking.training.regression import Regression

TEST = 0.2
"""Share of the rows, at random and the same for all seeds, that models are tested on if there is no test split."""


@dataclass(frozen=True)
class TableOfRun:
    """A table in parts, prepared as the training rows say.

    Attributes:
        name: of the table.
        train: rows to train on.
        test: rows to evaluate on.
        held_out: training rows for conditions, if there are any.
        splits: what each part of the table is used for.
        columns: number of columns, before they became numbers.
        index: columns that are left out, as they are row indices.
        deviation: standard deviation of the values, in their unit; None if models learn classes.
        unit: what the samples are.
    """

    name: str
    train: Table
    test: Table
    held_out: Table | None
    splits: tuple[SplitUse, ...]
    columns: int
    index: tuple[str, ...]
    deviation: float | None
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
        """Numbers of classes, or one output for values, and of columns."""
        outputs = len(self.train.classes) or 1
        return {"num_classes": outputs, "in_features": self.train.values.shape[1]}

    def describe(self) -> str:
        """Numbers of rows, columns and classes."""
        width = self.train.values.shape[1]
        as_numbers = "" if width == self.columns else f" ({width} numbers)"
        left_out = f"; left out as a row index: {', '.join(self.index)}" if self.index else ""
        return (
            f"{len(self.train):,} training and {len(self.test):,} test rows of {self.columns} columns{as_numbers}, "
            f"{f'{len(self.train.classes)} classes' if self.train.classes else 'values'}{left_out}"
        )

    def loaders(self, config: RunConfig) -> RunLoaders:
        """The rows of each part."""
        size = max(256, config.batch_size)
        return RunLoaders(
            in_batches(Rows(self.train), config.batch_size, shuffle_seed=config.seed),
            in_batches(Rows(self.test), size),
            in_batches(Rows(self.held_out), size) if self.held_out else None,
        )

    def parts(self) -> tuple[Samples, Samples]:
        """The rows of each part."""
        return Rows(self.train), Rows(self.test)

    def objective(self, config: RunConfig) -> Objective | None:
        """The Trainer's own classification, or regression that is measured in the unit of the values."""
        return Regression(config.teach, self.deviation) if self.deviation else None

    def taught(self, config: RunConfig, weight: float, temperature: float) -> Objective:
        """The same with a teacher; values have no temperature."""
        return (
            Regression(weight, self.deviation)
            if self.deviation
            else Classification(config.label_smoothing, weight, temperature)
        )


def _load(config: DataConfig, sharing: int, loss: Loss) -> TaskData:
    train, test, others, label = _splits(config, loss)
    train_rows, test_rows, held_out_rows, unused_rows = _parts(len(train), None if test is None else len(test), config)
    targets = Targets.of([train] if test is None else [train, test], train_rows, label, config.data, loss)
    named = {label, *config.ignore_columns, *config.category_columns}
    index = tuple(name for name in read_again(train.table, [count for _, count in train.files]) if name not in named)
    ignored = (*config.ignore_columns, *index)
    classes, scale = targets.classes, targets.scale
    preparation = Preparation.fit(train.select(train_rows), label, classes, ignored, config.category_columns, scale)

    def ready(split: RawRows, rows: Tensor) -> Table:
        return prepared(split, targets.labels[0 if split is train else 1], rows, preparation)

    source = f"rows of {train.source}"
    if test is None or config.validation:
        evaluated, test_source = train, f"{source}, held out"
        others += [] if test is None else [test]
    else:
        evaluated, test_source = test, f"rows of {test.source}"
    trained_on, tested_on = ready(train, train_rows), ready(evaluated, test_rows)
    _warn_of_lost_classes(trained_on, tested_on, config)
    held_out = None if held_out_rows is None else ready(train, held_out_rows)
    uses = [
        SplitUse.of("training", source, trained_on.labels),
        SplitUse.of("test", test_source, tested_on.labels),
        *(SplitUse(NOT_USED, rows.source, None, len(rows)) for rows in others),
        *([SplitUse(NOT_USED, source, None, unused_rows)] if unused_rows else []),
        *([] if held_out is None else [SplitUse.of(SET_ASIDE, source, held_out.labels)]),
    ]
    return TableOfRun(
        name=config.data,
        train=trained_on,
        test=tested_on,
        held_out=held_out,
        splits=tuple(uses),
        columns=len(preparation.columns),
        index=(*train.index, *index),
        deviation=scale.deviation if scale else None,
    )


def _splits(config: DataConfig, loss: Loss) -> tuple[RawRows, RawRows | None, list[RawRows], str]:
    """The training split, the test split if there is one, the other ones, and the name of the label column.

    Raises:
        SeekingError: they cannot be read, there are no training rows, or the test split that is named has no labels.
    """
    splits, label = read_tables(config)
    train = splits.pop("train")
    if not len(train):
        raise SeekingError(f"{config.data}: there are no training rows, only the names of columns; add rows")
    chosen = test_split_of(splits, label)
    test = splits.pop(chosen) if chosen else None
    if config.test_split and test is None:
        raise SeekingError(
            f"data set {config.data}: {config.test_split} has no {'values' if loss == 'mse' else 'classes'} "
            f"(column {label}); name another split with test_split, or hold rows out of the training split with "
            "validation"
        )
    return train, test, [*splits.values()], label


def _warn_of_lost_classes(train: Table, test: Table, config: DataConfig) -> None:
    """Tell of classes that are tested on, and not trained on."""
    lost = {*test.labels.tolist()} - {*train.labels.tolist()}
    if lost and train.classes:
        warnings.warn(
            f"{config.data}: {len(lost):,} of {len(train.classes):,} classes have no training rows: "
            f"{shown([train.classes[number] for number in sorted(lost)], NAMED_CLASSES)}",
            RunWarning,
            stacklevel=2,
        )


def _parts(rows: int, test_rows: int | None, config: DataConfig) -> tuple[Tensor, Tensor, Tensor | None, int]:
    """Which rows are trained on, which tested on (of the training split if there is no other), which held out.

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
    held_out = None
    if config.held_out:
        rest, held_out = cut(rest, config.held_out)
    rest, test = rest[: config.max_train_samples], test[: config.max_eval_samples]
    if not len(rest) or not len(test):
        raise SeekingError(
            f"{config.data}: of {rows} rows, {len(rest)} are left to train on and {len(test)} to test on; hold "
            "out fewer"
        )
    return rest, test, held_out, unused


OPTIONS = frozenset({"ignore_columns", "category_columns"}) | OF_SOURCES - {"image_column"}

TASK = Task(
    "tabular",
    {"cross_entropy": ACCURACY, "mse": RMSE},
    {"cross_entropy": Classification.METRICS, "mse": Regression.METRICS},
    _load,
    OPTIONS,
    TABLES,
)
