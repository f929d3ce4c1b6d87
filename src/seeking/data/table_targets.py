"""What the rows of a table are trained towards: classes, or values."""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seeking.choices import Loss
from seeking.data.folders import shown
from seeking.data.labels import NAMED_CLASSES
from seeking.data.table_columns import Column, Floats, Number
from seeking.data.table_files import RawRows
from seeking.data.value_names import is_fraction, look_alike
from seeking.errors import RunWarning, SeekingError, unknown

MANY = 20
"""More whole numbers than this, with fewer rows than this for each, are values rather than classes."""


@dataclass(frozen=True)
class Targets:
    """What rows are trained towards.

    Attributes:
        labels: of each split, a number for each row: that of its class, int64; or its value, float32, scaled to mean 0
            and standard deviation 1 of the training rows.
        classes: names of the classes; none if models learn values.
        scale: that values are scaled by, if models learn these.
    """

    labels: list[Tensor]
    classes: tuple[str, ...]
    scale: Number | None

    @classmethod
    def of(cls, splits: Sequence[RawRows], left: Tensor, label: str, name: str, loss: Loss) -> "Targets":
        """The targets of the training split and of the test split, if there is one.

        Args:
            splits: the training split first.
            left: places of the rows of the training split that are trained on.
            label: name of the column of classes or values.
            name: of the table.
            loss: that is minimized.

        Raises:
            SeekingError: the column does not exist, a row has no class or value, or they cannot be learnt.
        """
        columns = [_column(rows, label, "value" if loss == "mse" else "class") for rows in splits]
        if loss == "mse":
            values = [_values(column) for column in columns]
            scale = _scale_of(values[0][left.numpy()], label, name)
            scaled = [(each - scale.mean) / scale.deviation for each in values]
            return cls([torch.from_numpy(each).float() for each in scaled], (), scale)
        named = [_classes(columns[0])]
        named += [_classes(column, named[0][0]) for column in columns[1:]]
        for column in columns:
            column.tell_surprises()
        classes = _classes_of(named[0][0], named[-1][0], len(splits[0]), name)
        for told in look_alike("classes", classes):
            warnings.warn(f"{name}: {told}", RunWarning, stacklevel=2)
        places = {each: place for place, each in enumerate(classes)}
        numbers = [torch.tensor([places[each] for each in names])[codes] for names, codes in named]
        return cls(numbers, classes, None)


def _classes(column: Column, like: Sequence[str] | None = None) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The names of the classes of some rows, and the place of each row's; see ``Column.categories``.

    Raises:
        SeekingError: the values are no classes.
    """
    names, codes = column.categories(like)
    if column.are_numbers.all() and any(map(is_fraction, names)):
        row = int(np.isin(codes, [place for place, name in enumerate(names) if is_fraction(name)]).argmax())
        raise SeekingError(
            f"column {column.name}, {column.rows.place(row)}: {column.texts[row].as_py()} is no class; to learn "
            "values, set loss to mse; else group them, or name another column in label_column"
        )
    return names, codes


def _values(column: Column) -> Floats:
    """The value of each row, float64.

    Raises:
        SeekingError: a row has what is no number.
    """
    if not column.are_numbers.all():
        row = int((~column.are_numbers).argmax())
        raise SeekingError(
            f"column {column.name}, {column.rows.place(row)}: {column.texts[row].as_py()!r} is not a number, as loss "
            "mse needs; correct it, name another column in label_column, or set loss to cross_entropy if these are "
            "classes"
        )
    return column.numbers("its values")


def _column(rows: RawRows, label: str, what: str) -> Column:
    """The column of classes or values.

    Raises:
        SeekingError: it does not exist, or a row has none.
    """
    names = rows.table.column_names
    if label not in names:
        raise unknown(f"label_column of {rows.source}", label, names)
    column = Column(label, rows)
    texts = column.texts
    if texts.null_count:
        row = int(texts.is_null().to_numpy(zero_copy_only=False).argmax())
        rename = ", rename the class" if what == "class" else ""
        raise SeekingError(
            f"column {label}, {rows.place(row)}: there is no {what} (of {texts.null_count:,} of {len(rows):,} rows), "
            f"but {rows.table.column(label)[row].as_py()!r}, which stands for a missing one; remove these rows"
            f"{rename}, or name another column in label_column"
        )
    return column


def in_order(classes: Collection[str]) -> list[str]:
    """Names of classes by number if all are numbers, else by the alphabet."""
    try:
        return sorted(classes, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(classes)


def _classes_of(train: Collection[str], test: Collection[str], rows: int, name: str) -> tuple[str, ...]:
    """The names of all classes, those that only test rows have last.

    Args:
        train: names of the classes of the training rows.
        test: likewise.
        rows: number of training rows.
        name: of the table.

    Raises:
        SeekingError: nearly every row has a class of its own, there is only one class, or the two
            splits have none in common.
    """
    first = in_order(train)
    more = in_order({*test} - {*train})
    if len(first) < 2:
        raise SeekingError(f"{name}: all training rows are of one class, {shown(first, 1)}; there is nothing to learn")
    if len(first) > max(2, rows // 2):
        raise SeekingError(
            f"{name}: {rows:,} training rows have {len(first):,} classes, {shown(first, NAMED_CLASSES)}; name "
            "another column in label_column, group the values, or, if they are values, set loss to mse"
        )
    if len(first) > MANY and rows < MANY * len(first) and all(name.lstrip("+-").isdigit() for name in first):
        warnings.warn(
            f"{name}: {len(first):,} whole numbers, {first[0]} to {first[-1]}, count as classes; if they are values, "
            "set loss to mse",
            RunWarning,
            stacklevel=2,
        )
    if more and not {*test} & {*train}:
        raise SeekingError(
            f"{name}: the training and the test split have no class in common: {shown(first, NAMED_CLASSES)} and "
            f"{shown(more, NAMED_CLASSES)}; call the classes the same in both"
        )
    return (*first, *more)


def _scale_of(values: npt.NDArray[np.float64], label: str, name: str) -> Number:
    """The mean and the standard deviation of the values of training rows.

    Raises:
        SeekingError: all rows have the same value.
    """
    scale = Number.of(label, values, missing=False)
    if not scale.deviation:
        raise SeekingError(f"{name}: all training rows have the value {values[0]:g}; there is nothing to learn")
    return scale
