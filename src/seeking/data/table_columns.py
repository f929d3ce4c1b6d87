"""What the columns of a table become: numbers, from what its training rows hold."""

import dataclasses
import functools
import math
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seeking.data.folders import NAMED_FILES, shown
from seeking.data.table_files import RawRows
from seeking.data.value_names import NUMBER, look_alike, surprises, value_name, with_booleans
from seeking.errors import RunWarning, SeekingError, unknown

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

WITH_COMMA = re.compile(r"[+-]?\d+([., ]\d+)*,\d+([.]\d+)?([eE][+-]?\d+)?$")
"""What most of Europe writes for a number with a fraction, and others for thousands."""
MISSING = frozenset({"", "?", "na", "n/a", "#n/a", "nan", "null", "none", "nil"})
"""What stands for a missing value, in upper or lower case."""
MAX_CATEGORIES = 1000
FEW = 10
"""As many categories a column may always have; more, if each has two rows on average."""
LARGEST = 1e30
"""Numbers beyond it are refused: float32 could not hold them, or their squares."""


@dataclass(frozen=True)
class Number:
    """A column of numbers, scaled to mean 0 and standard deviation 1 of the training rows.

    Missing values become the mean. If some training rows have none, a second column is 1 where it is missing. A column
    that is constant in the training rows is 0.
    """

    name: str
    mean: float
    deviation: float
    missing: bool

    @classmethod
    def of(cls, name: str, values: Floats, missing: bool) -> "Number":
        """The column of these values of training rows; those that are NaN are missing."""
        known = values[~np.isnan(values)]
        mean = float(known.mean()) if len(known) else 0.0
        deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
        return cls(name, mean, deviation if deviation > 1e-12 * abs(mean) else 0.0, missing)

    @property
    def width(self) -> int:
        """Numbers that a row gets."""
        return 1 + self.missing

    def prepare(self, column: "Column", out: npt.NDArray[np.float32]) -> None:
        """Write the values of the rows into zeros ``[rows, width]``."""
        values = column.numbers("all values of the training rows")
        absent = np.isnan(values)
        if self.deviation:
            out[:, 0] = np.where(absent, 0.0, (values - self.mean) / self.deviation)
        if self.missing:
            out[:, 1] = absent


@dataclass(frozen=True)
class Category:
    """A column of categories: for each that the training rows have, a column of 0 and 1.

    All are 0 for other values, and for missing ones. If some training rows have none, one more column is 1 where it is
    missing.
    """

    name: str
    values: tuple[str, ...]
    missing: bool

    @property
    def width(self) -> int:
        """Numbers that a row gets."""
        return len(self.values) + self.missing

    def prepare(self, column: "Column", out: npt.NDArray[np.float32]) -> None:
        """Write the values of the rows into zeros ``[rows, width]``; warns of those that are not categories."""
        categories, codes = column.categories(self.values)
        places = {value: place for place, value in enumerate(self.values)}
        new = [value for value in categories if value not in places]
        if new:
            rows = np.isin(codes, [categories.index(value) for value in new])
            warnings.warn(
                f"{column.where}: {int(rows.sum()):,} rows have values that no training row has, and count as none of "
                f"the categories: {shown(new, NAMED_FILES)} (such as {column.rows.place(int(rows.argmax()))})",
                RunWarning,
                stacklevel=4,
            )
        # One more row of the table of codes, for missing values, whose code is -1.
        lookup = np.array([*(places.get(value, -1) for value in categories), len(self.values) if self.missing else -1])
        ones = lookup[codes]
        known = ones >= 0
        out[known.nonzero()[0], ones[known]] = 1


@dataclass(frozen=True)
class Column:
    """A column as it is in files.

    Attributes:
        name: its name.
        rows: that it is of.
    """

    name: str
    rows: RawRows

    @property
    def where(self) -> str:
        """For messages."""
        return f"column {self.name} of {self.rows.source}"

    @functools.cached_property
    def texts(self) -> Any:
        """As strings of pyarrow; null where a value is missing.

        Raises:
            SeekingError: they are neither numbers nor text.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self.rows.table.column(self.name).combine_chunks()
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        kind = values.type
        if pa.types.is_floating(kind):
            values = pc.if_else(pc.is_nan(values), None, values)
        plain = pa.types.is_boolean(kind) or pa.types.is_null(kind) or pa.types.is_decimal(kind)
        if not (plain or _is_numeric(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise SeekingError(
                f"{self.where} holds {kind}, neither numbers nor text; convert it, or train without it (ignore_columns)"
            )
        texts = pc.utf8_trim_whitespace(values.cast(pa.string()))
        if pa.types.is_boolean(kind):  # As pandas writes them in CSV files.
            texts = pc.utf8_capitalize(texts)
        return pc.if_else(pc.is_in(pc.utf8_lower(texts), pa.array([*MISSING])), None, texts)

    @functools.cached_property
    def are_numbers(self) -> Flags:
        """Which values are numbers; missing ones are."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if _is_numeric(self.rows.table.column(self.name).type):
            return np.ones(len(self.rows), bool)
        match = pc.match_substring_regex(self.texts, f"^{NUMBER.pattern}$")
        numbers: Flags = pc.fill_null(match, pa.scalar(True)).to_numpy(zero_copy_only=False)
        return numbers

    def numbers(self, others: str) -> Floats:
        """As float64; NaN where a value is missing.

        Args:
            others: that are numbers, for messages.

        Raises:
            SeekingError: a value is not a number, or too large.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.are_numbers.all():
            row = int((~self.are_numbers).argmax())
            raise SeekingError(
                f"column {self.name}, {self.rows.place(row)}: {self.texts[row].as_py()!r} is not a number, as "
                f"{others} are; correct it, leave it empty if it is missing, or train with the column in "
                "category_columns or ignore_columns"
            )
        column = self.rows.table.column(self.name).combine_chunks()
        values = column if _is_numeric(column.type) else self.texts
        numbers: Floats = pc.fill_null(values.cast(pa.float64(), safe=False), np.nan).to_numpy()
        large = np.abs(numbers) > LARGEST
        if large.any():
            row = int(large.argmax())
            raise SeekingError(
                f"column {self.name}, {self.rows.place(row)}: {numbers[row]:g} is infinite or too large; correct it"
            )
        return numbers

    @functools.cached_property
    def _encoded(self) -> Any:
        return self.texts.dictionary_encode()

    def categories(self, like: Sequence[str] | None = None) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The different values by name, and the place of each row's; -1 where it is missing.

        Args:
            like: names in the training rows, which say whether the values are booleans; by default these ones.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        names = [value_name(text) for text in self._encoded.dictionary.to_pylist()]
        names = with_booleans(names, names if like is None else like)
        places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        lookup = np.array([*(places[name] for name in names), -1], np.int64)
        codes = pc.fill_null(self._encoded.indices.cast(pa.int64()), -1).to_numpy()
        return [*places], lookup[codes]

    def tell_surprises(self) -> None:
        """Warn of names that a user may not expect of the values."""
        if told := surprises(self._encoded.dictionary.to_pylist()):
            warnings.warn(f"{self.where}: {told}", RunWarning, stacklevel=3)


def _is_numeric(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def fit_column(column: Column, categorical: bool) -> Number | Category:
    """What a column becomes: a number if all values of the training rows are, else categories.

    Args:
        column: of the training rows.
        categorical: whether it holds categories, even if these are numbers.

    Raises:
        SeekingError: most values are numbers and some are not, or there are too many categories.
    """
    texts = column.texts
    missing = 0 < texts.null_count < len(texts)
    of_numbers = int(column.are_numbers.sum()) - texts.null_count
    others = len(texts) - texts.null_count - of_numbers
    if not categorical and of_numbers >= others:
        return Number.of(column.name, column.numbers(f"{of_numbers:,} others"), missing)
    names, codes = column.categories()
    if not categorical and names and all(WITH_COMMA.match(value) or NUMBER.fullmatch(value) for value in names):
        row = next(row for row, code in enumerate(codes) if code >= 0 and "," in names[code])
        raise SeekingError(
            f"column {column.name}, {column.rows.place(row)}: {names[codes[row]]!r} is a number with a comma; write "
            "numbers with a decimal point and nothing between thousands, or name the column in category_columns"
        )
    if len(names) > min(MAX_CATEGORIES, max(FEW, (codes >= 0).sum() // 2)):
        row = int((codes >= 0).argmax())
        raise SeekingError(
            f"column {column.name} has {len(names):,} different values in {len(column.rows):,} training rows, such as "
            f"{names[codes[row]]!r} in {column.rows.place(row)}: too many for categories; leave it out with "
            "ignore_columns, or group the values"
        )
    column.tell_surprises()
    for told in look_alike("categories", sorted(names)):
        warnings.warn(f"{column.where}: {told}", RunWarning, stacklevel=2)
    return Category(column.name, tuple(sorted(names)), missing)


@dataclass(frozen=True)
class Preparation:
    """How rows of a table are made ready for models: what was learnt from the training rows.

    Attributes:
        columns: that are used, in their order.
        label: name of the column of classes or values.
        classes: names of the classes, in the order of their numbers; none if models learn values.
        target: mean and standard deviation of the values, if models learn these.
    """

    columns: tuple[Number | Category, ...]
    label: str
    classes: tuple[str, ...]
    target: Number | None = None

    @classmethod
    def fit(
        cls,
        rows: RawRows,
        label: str,
        classes: Sequence[str],
        ignore: Collection[str] = (),
        categorical: Collection[str] = (),
        target: Number | None = None,
    ) -> "Preparation":
        """Learn it from training rows.

        Args:
            rows: the training rows.
            label: name of the column of classes or values.
            classes: names of the classes.
            ignore: names of columns that are left out.
            categorical: names of columns whose numbers are categories.
            target: what values are scaled by.

        Raises:
            SeekingError: there are no such columns, none is left, or one cannot be used; all of these are named.
        """
        names = rows.table.column_names
        for option, chosen in (("ignore_columns", ignore), ("category_columns", categorical)):
            for name in chosen:
                if name not in names:
                    raise unknown(f"column of {rows.source}", name, names)
            if label in chosen:
                raise SeekingError(
                    f"{label} is the label column of {rows.source}, so it cannot be in {option}; leave it out there, "
                    "or name another column in label_column"
                )
        if both := sorted({*ignore} & {*categorical}):
            raise SeekingError(
                f"column {both[0]} is in ignore_columns and in category_columns; leave it out of one of them"
            )
        used = [name for name in names if name != label and name not in ignore]
        if not used:
            raise SeekingError(f"{rows.source} has no column but {label} and those that are ignored")
        columns, problems = [], []
        for name in used:
            try:
                columns.append(fit_column(Column(name, rows), name in categorical))
            except SeekingError as error:
                problems.append(str(error))
        if problems:
            raise SeekingError("\n".join(problems))
        return cls(tuple(columns), label, tuple(classes), target)

    @property
    def width(self) -> int:
        """Numbers that a row becomes."""
        return sum(column.width for column in self.columns)

    def values(self, rows: RawRows) -> npt.NDArray[np.float32]:
        """The rows as float32, ``[rows, width]``; columns that are not used may be there or not.

        Raises:
            SeekingError: a column is missing, or a value is not a number where those of the training rows are.
        """
        lacking = [column.name for column in self.columns if column.name not in rows.table.column_names]
        if lacking:
            raise SeekingError(
                f"{rows.source} has no column {shown(lacking, NAMED_FILES)}, which the training rows have; add it, or "
                "train without it (ignore_columns)"
            )
        out, place = np.zeros((len(rows), self.width), np.float32), 0
        for column in self.columns:
            column.prepare(Column(column.name, rows), out[:, place : place + column.width])
            place += column.width
        return out

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        columns = [{"kind": type(column).__name__.lower(), **dataclasses.asdict(column)} for column in self.columns]
        target = {"target": {"mean": self.target.mean, "deviation": self.target.deviation}} if self.target else {}
        return {"columns": columns, "label": self.label, "classes": [*self.classes], **target}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Preparation":
        """The preparation that ``as_dict`` gave, such as ``preparation`` of a run's ``summary.json``.

        Raises:
            SeekingError: it is not such a preparation.
        """

        def check(holds: bool, wrong: str) -> None:
            if not holds:
                raise ValueError(wrong)

        def different(names: Any, what: str) -> tuple[str, ...]:
            texts = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
            check(texts and len({*names}) == len(names), f"{what} are not different names")
            return tuple(names)

        def number(name: Any, mean: Any, deviation: Any, missing: Any) -> Number:
            finite = math.isfinite(mean) and math.isfinite(deviation)
            check(finite and deviation >= 0, f"{name!r} has mean {mean} and deviation {deviation}")
            check(isinstance(missing, bool), f"missing of {name!r} is {missing!r}")
            return Number(name, float(mean), float(deviation), missing)

        def category(name: Any, values: Any, missing: Any) -> Category:
            check(isinstance(missing, bool), f"missing of {name!r} is {missing!r}")
            return Category(name, different(values, f"values of {name!r}"), missing)

        kinds: dict[str, Callable[..., Number | Category]] = {"number": number, "category": category}
        try:
            columns = []
            for column in content["columns"]:
                own = dict(column)
                columns.append(kinds[own.pop("kind")](**own))
            check(bool(columns), "there are no columns")
            label, target = content["label"], content.get("target")
            different([label, *(column.name for column in columns)], "label and columns")
            scale = number(label, **target, missing=False) if target else None
            return cls(tuple(columns), label, different(content["classes"], "classes"), scale)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SeekingError(
                f"not a preparation of a table ({type(error).__name__}: {error}); give preparation of a run's "
                "summary.json"
            ) from error
