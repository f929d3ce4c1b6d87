"""Tables: rows of numbers with a class or a value for each, of scikit-learn or a user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seeking.data.config import DataConfig
from seeking.data.select import LABEL_COLUMNS, TEST_SPLITS
from seeking.data.sources import is_saved, named, refuse_subset, saved
from seeking.data.table_columns import Column, Preparation
from seeking.data.table_files import KINDS, RawRows, read_columns, read_files, rows_of
from seeking.errors import SeekingError, unknown
from seeking.files import user_path

TABLES = ("breast_cancer", "diabetes", "digits", "wine")
"""Those that scikit-learn has on board."""

TARGET = "target"
"""The label column of these."""


@dataclass(frozen=True)
class Table:
    """Rows as models take them, with their classes or values.

    Attributes:
        values: float32, ``[rows, columns]``.
        labels: numbers of classes, int64 ``[rows]``; or values, float32 ``[rows]``, scaled to mean 0 and standard
            deviation 1 of the training rows.
        classes: names of the classes.
        preparation: what it takes to prepare new rows in the same way, as JSON has it.
    """

    values: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    preparation: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.labels)


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """A table as a data set that gives whole batches."""

    stateless = True
    """An item does not depend on the items loaded before it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.classes = table.classes
        self.preparation = table.preparation
        self.tensors = (table.values, table.labels)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.table.values[index], self.table.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch: float32 ``[len(indices), columns]`` and the labels."""
        return self.table.values[indices], self.table.labels[indices]


def read_tables(config: DataConfig) -> tuple[dict[str, RawRows], str]:
    """The splits of a table, and the name of its label column.

    Raises:
        SeekingError: it does not exist or cannot be read, or the label column is not known.
    """
    if config.data in TABLES:
        return {"train": _of_scikit_learn(config.data)}, TARGET
    splits = _splits(config)
    names = splits["train"].table.column_names
    label = config.label_column or next((name for name in (*LABEL_COLUMNS, TARGET) if name in names), None)
    if label is None:
        raise SeekingError(
            f"data set {config.data}: none of the columns is called {' or '.join((*LABEL_COLUMNS, TARGET))}; name the "
            f"one that holds the classes or values in label_column: {', '.join(names)}"
        )
    if label not in names:
        raise unknown(f"label_column of {splits['train'].source}", label, names)
    return splits, label


def _splits(config: DataConfig) -> dict[str, RawRows]:
    path = user_path(config.data)
    if not config.data.strip():  # As a path it would be the current folder.
        raise SeekingError("data is empty; give the name of a table, a file or a folder")
    if path.exists():
        refuse_subset(config.data, config.subset)
    if is_saved(path):
        splits = saved(path, config.chosen_splits)
    elif path.exists():
        return read_files(config.data, config.chosen_splits)
    elif path.suffix.lower() in KINDS:
        where = "" if path.is_absolute() else f" in {Path.cwd()}; give its path"
        raise SeekingError(f"data set {config.data}: no such file or folder{where}")
    else:
        splits = named(config.data, config.chosen_splits, TABLES, subset=config.subset)
    return {name: rows_of(split, f"{split.source} of {config.data}") for name, split in splits.items()}


def test_split_of(splits: Mapping[str, RawRows], label: str) -> str | None:
    """The split that models are evaluated on: the first with classes or values; None if there is none."""
    for name in TEST_SPLITS:
        rows = splits.get(name)
        if rows is not None and label in rows.table.column_names and Column(label, rows).texts.null_count < len(rows):
            return name
    return None


def prepared(rows: RawRows, labels: Tensor, chosen: Tensor, preparation: Preparation) -> Table:
    """Some rows as models take them.

    Args:
        rows: of a split.
        labels: of all of these, as ``Targets`` has them.
        chosen: places of those that are taken.
        preparation: how they are made ready.

    Raises:
        SeekingError: a value cannot be used; the message names its row and column.
    """
    values = torch.from_numpy(preparation.values(rows.select(chosen)))
    return Table(values, labels[chosen], preparation.classes, preparation.as_dict())


def prepare_rows(preparation: Mapping[str, Any], file: str | Path) -> Tensor:
    """New rows as a model of an earlier run takes them.

    Args:
        preparation: of the run, from its ``summary.json``.
        file: CSV or parquet, with the columns that the run was trained on, whatever others there are; or a folder of
            such files that are one table.

    Returns:
        Float32, ``[rows, columns]``.

    Raises:
        SeekingError: it is no such preparation, the file cannot be read, a column is missing, a value cannot be used,
            or the folder holds several tables.
    """
    learnt = Preparation.from_dict(preparation)
    return torch.from_numpy(learnt.values(read_columns(str(file), [column.name for column in learnt.columns])))


def _of_scikit_learn(name: str) -> RawRows:
    import pyarrow as pa
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")()
    columns = {str(column): bunch.data[:, number] for number, column in enumerate(bunch.feature_names)}
    names = getattr(bunch, "target_names", None)  # Values have none.
    columns[TARGET] = bunch.target if names is None else np.array(names, dtype=object)[bunch.target].astype(str)
    table = pa.table(columns)
    return RawRows(name, table, [(name, len(table))], np.arange(len(table)))
