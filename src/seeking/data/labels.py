"""Labels by the names of their classes."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seeking.data.folders import Split, shown
from seeking.data.value_names import look_alike
from seeking.errors import RunWarning, SeekingError

MAX_CLASSES = 1_000_000
"""How many classes integers may number; larger integers are identifiers rather than classes."""
NAMED_CLASSES = 5
"""How many classes a message names."""
STRINGS = ("string", "large_string", "string_view")


@dataclass(frozen=True)
class _Labels:
    """The labels of some rows.

    Attributes:
        numbers: of the classes; negative where a label is missing.
        names: of the classes, if the labels have names.
        ordered: whether the order of the names was chosen by the user.
    """

    numbers: npt.NDArray[np.int64]
    names: tuple[str, ...] | None = None
    ordered: bool = False

    @property
    def used(self) -> list[str]:
        """Names of the classes that have images; their numbers if they have no names."""
        numbers = np.unique(self.numbers[self.numbers >= 0]).tolist()
        return [str(number) if self.names is None else self.names[number] for number in numbers]


@dataclass(frozen=True)
class Labelled:
    """A split, and the labels of each of its data sets."""

    split: Split
    parts: list[_Labels]

    @property
    def used(self) -> list[str]:
        """Names of the classes that have images; empty if no row has a label, as in test splits often."""
        return list(dict.fromkeys(name for part in self.parts for name in part.used))


def read_labels(split: Split, column: str, data: str) -> Labelled:
    """Read the labels of a split.

    Raises:
        SeekingError: they are not classes, integers or strings, or out of range.
    """
    return Labelled(split, [_read(rows, column, split.source, data) for rows in split.rows])


def unite(train: Labelled, test: Labelled | None, column: str, data: str) -> tuple[Any, Any, tuple[str, ...]]:
    """Join the rows of each split, and number the classes in the same way in both.

    Classes are identified by their names, if the labels have names. The order is that of the training split, and the
    alphabet if the labels are strings; classes that the test split alone has images of come last.

    Args:
        train: the training split.
        test: the test split, if there is one.
        column: name of the label column.
        data: name of the data set, for messages.

    Returns:
        The rows of both splits, as Hugging Face data sets, and the names of the classes.

    Raises:
        SeekingError: it is not known which classes are the same: some labels have names and some have not, the splits
            have no class in common, or the test split has numbers without names that the training split has not.
    """
    import datasets

    labelled = [each for each in (train, test) if each is not None]
    splits, labels, used = ([getattr(each, name) for each in labelled] for name in ("split", "parts", "used"))
    if any(part.names is not None for parts in labels for part in parts):
        classes = _classes(labels, used, column, data)
        feature = datasets.ClassLabel(names=classes)
    else:
        largest = max(int(part.numbers.max(initial=-1)) for part in labels[0])
        classes, feature = [str(number) for number in range(largest + 1)], datasets.Value("int64")
        strange = [name for name in _without(used[-1], used[0]) if int(name) <= largest]
        if strange:
            raise SeekingError(
                f"data set {data}: labels {shown(strange, NAMED_CLASSES)} are in {splits[-1].source} and not in "
                f"{splits[0].source}; if both number the classes alike, store the names of the classes instead"
            )
    _warn(classes, used, splits, data)
    numbers = {name: number for number, name in enumerate(classes)}
    united = []
    for split, parts in zip(splits, labels, strict=True):
        rows = [_renumber(*pair, column, numbers, feature) for pair in zip(split.rows, parts, strict=True)]
        try:
            united.append(rows[0] if len(rows) == 1 else datasets.concatenate_datasets(rows))
        except ValueError as error:
            raise SeekingError(
                f"data set {data}: the columns of the files of {split.source} differ ({error})"
            ) from error
    return united[0], united[1] if test else None, tuple(classes)


def numbers_of(rows: Any, column: str) -> npt.NDArray[np.int64]:
    """The class numbers of united rows; -1 where a label is missing."""
    import pyarrow.compute as pc

    values = rows.select_columns([column]).with_format("arrow")[:][column]
    numbers: npt.NDArray[np.int64] = pc.fill_null(values, -1).to_numpy()
    return numbers


def _read(rows: Any, column: str, source: str, data: str) -> _Labels:
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc

    if column not in rows.features:
        raise SeekingError(f"data set {data}: {source} has no column {column}; it has {', '.join(rows.features)}")
    feature = rows.features[column]
    values = rows.select_columns([column]).with_format("arrow")[:][column]
    dtype = str(getattr(feature, "dtype", ""))
    if dtype in STRINGS:
        encoded = values.cast(pa.large_string()).combine_chunks().dictionary_encode()
        names, ranks = np.unique(np.array(encoded.dictionary.to_pylist(), dtype=object), return_inverse=True)
        filled = np.array([bool(name.strip()) for name in names], dtype=bool)
        missing_last = np.append(np.where(filled, np.cumsum(filled) - 1, -1)[ranks], -1)
        return _Labels(missing_last[pc.fill_null(encoded.indices, -1).to_numpy()], tuple(names[filled]))
    named = isinstance(feature, datasets.ClassLabel)
    if dtype == "null":  # No row has a label, so nothing says of which type they would be.
        return _Labels(np.full(len(values), -1))
    if dtype == "bool":
        values, dtype = values.cast(pa.int8()), "int8"
    if not named and not dtype.startswith(("int", "uint")):
        values_hint = "; images with values are trained on in Python, by TrainConfig(loss='mse')"
        raise SeekingError(
            f"data set {data}: column {column} of {source} holds {feature}, not classes, integers, strings or "
            "booleans; store them so, or name another column with label_column"
            + (values_hint if dtype.startswith("float") else "")
        )
    largest = pc.max(values).as_py() or 0
    if not named and largest >= MAX_CLASSES:
        raise SeekingError(
            f"data set {data}: column {column} holds {largest}; integers are class numbers below {MAX_CLASSES:,}: "
            "number the classes from 0, or name another column with label_column"
        )
    if named and largest >= max(1, feature.num_classes):
        raise SeekingError(
            f"data set {data}: label {largest} of {source} is out of range; there are {feature.num_classes} classes, "
            "numbered from 0"
        )
    numbers = pc.fill_null(values.cast(pa.int64()), -1).to_numpy()
    return _Labels(numbers, tuple(feature.names) if named else None, ordered=named)


def _classes(labels: list[list[_Labels]], used: list[list[str]], column: str, data: str) -> list[str]:
    """The names of all classes."""
    parts = [part for group in labels for part in group]
    named = {name for part in parts for name in part.names or ()}
    for part in parts:
        if part.names is None and not named.issuperset(part.used):
            raise SeekingError(
                f"data set {data}: column {column} holds numbers ({shown(part.used, NAMED_CLASSES)}) in some files and "
                f"names ({shown(sorted(named), NAMED_CLASSES)}) in others; store names in all of them"
            )
    classes = list(dict.fromkeys(name for part in labels[0] for name in part.names or part.used))
    if not any(part.ordered for part in labels[0]):
        classes.sort()
    extra = _without(used[-1], classes)
    if extra and len(extra) == len(used[-1]):
        raise SeekingError(
            f"data set {data}: the training and the test split have no class in common: "
            f"{shown(classes, NAMED_CLASSES)} and {shown(extra, NAMED_CLASSES)}; call the classes the same in both"
        )
    return classes + extra


def _without(names: list[str], others: list[str]) -> list[str]:
    excluded = set(others)
    return [name for name in names if name not in excluded]


def _warn(classes: list[str], used: list[list[str]], splits: list[Split], data: str) -> None:
    """Tell of classes that a split has no images of, and of classes that look the same."""
    train, test = used[0], used[-1]
    rare = {
        "have no images": _without(classes, train + test),
        f"have images in {splits[0].source} alone": _without(train, test),
        f"have images in {splits[-1].source} alone": _without(test, train),
    }
    texts = [
        f"{len(names):,} of {len(classes):,} classes {where}: {shown(names, NAMED_CLASSES)}"
        for where, names in rare.items()
        if 0 < len(names) < len(classes)
    ]
    for text in [*texts, *look_alike("classes", classes)]:
        warnings.warn(f"data set {data}: {text}", RunWarning, stacklevel=2)


def _renumber(rows: Any, labels: _Labels, column: str, numbers: dict[str, int], feature: Any) -> Any:
    """The same rows with other class numbers; images are not copied."""
    if rows.features[column] == feature:
        return rows
    names = labels.names or [str(number) for number in range(int(labels.numbers.max(initial=-1)) + 1)]
    lookup = np.array([numbers.get(name, number) for number, name in enumerate(names)], dtype=np.int64)
    known = labels.numbers >= 0
    renumbered = labels.numbers.copy()
    renumbered[known] = lookup[labels.numbers[known]]
    old = f"{column} as stored"  # Without any column, rows would lose their number.
    return rows.rename_column(column, old).add_column(column, renumbered, feature=feature).remove_columns([old])
