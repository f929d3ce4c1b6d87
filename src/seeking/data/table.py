"""Tables of numbers with a class for each row: those that scikit-learn has on board."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from seeking.errors import unknown

TABLES = ("breast_cancer", "digits", "wine")


@dataclass(frozen=True)
class Table:
    """Rows of numbers with their classes.

    Attributes:
        values: float32, ``[rows, columns]``.
        labels: int64, ``[rows]``.
        classes: names of the classes.
    """

    values: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Tensor) -> "Table":
        """These rows, int64."""
        return Table(self.values[rows], self.labels[rows], self.classes)

    def scaled_as(self, other: "Table") -> "Table":
        """With each column's mean and standard deviation in another table at 0 and 1; constant columns are 0 there."""
        deviation, mean = torch.std_mean(other.values, dim=0)
        scaled = (self.values - mean) / torch.where(deviation > 0, deviation, 1.0)
        return Table(scaled, self.labels, self.classes)


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """A table as a data set that gives whole batches."""

    stateless = True
    """An item does not depend on the items loaded before it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.classes = table.classes
        self.tensors = (table.values, table.labels)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.table.values[index], self.table.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch: float32 ``[len(indices), columns]`` and int64 labels."""
        return self.table.values[indices], self.table.labels[indices]


def read_table(name: str) -> Table:
    """A table of scikit-learn; nothing is downloaded.

    Raises:
        SeekingError: it does not exist.
    """
    if name not in TABLES:
        raise unknown("table", name, TABLES)
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")()
    classes = tuple(map(str, bunch.target_names))
    return Table(torch.from_numpy(bunch.data).float(), torch.from_numpy(bunch.target).long(), classes)
