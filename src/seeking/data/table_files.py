"""Tables in files: CSV and parquet, alone or in a folder."""

import codecs
import csv
import dataclasses
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seeking.data.folders import NAMED_FILES, Split, describe, files, shown, walk
from seeking.data.parquet import source_of, split_files, split_of
from seeking.data.row_index import without_index
from seeking.errors import RunWarning, SeekingError, naming, unknown
from seeking.files import check_regular, reading, user_path

CSV = (".csv", ".tsv")
KINDS = (*CSV, ".parquet")
DELIMITERS = ",;\t|"
SHOWN = 20
"""As many letters of a value messages show."""


@dataclass(frozen=True)
class RawRows:
    """Rows as they are in files.

    Attributes:
        source: where they come from, for messages.
        table: of pyarrow; the columns of CSV files are strings.
        files: each file, and how many rows it has.
        numbers: of the rows among all of these files, from 0.
        index: columns of the files that are not in the table, as they are row indices; for messages.
    """

    source: str
    table: Any
    files: Sequence[tuple[str, int]]
    numbers: npt.NDArray[np.int64]
    index: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def select(self, rows: Any) -> "RawRows":
        """These rows, by their place here."""
        rows = np.asarray(rows)
        return dataclasses.replace(self, table=self.table.take(rows), numbers=self.numbers[rows])

    def place(self, row: int) -> str:
        """The row and its file, for messages; the first row after the names of columns is row 1.

        Raises:
            IndexError: there are fewer rows.
        """
        number = int(self.numbers[row])
        for name, count in self.files:
            if number < count:
                return f"row {number + 1:,} of {name}"
            number -= count
        raise IndexError(row)


def read_files(data: str, chosen: Mapping[str, str]) -> dict[str, RawRows]:
    """The splits of a table, by standard name: ``train``, and perhaps ``test`` and ``validation``.

    Args:
        data: a file, or a folder of files of one kind.
        chosen: the names of splits or files that the user has chosen as ``train`` or ``test``.

    Raises:
        SeekingError: a file cannot be read, its columns have no names, or they differ between the files of a split;
            the splits are not known.
    """
    root, held, tables = _tables_of(data)
    named: dict[str, list[str]] = {"train": tables}
    unused: list[str] = []
    if len(chosen) == 2:
        named, unused = {}, tables
    elif chosen or user_path(data).is_dir():  # A single file may be called after any split.
        named, unused = split_files(str(root), tables)
    splits = {split: (source_of(group), group) for split, group in named.items()}
    if chosen:
        splits, unused = _chosen(data, splits, tables, chosen)
    unused += [file for file in held if file not in tables]
    if unused:
        warnings.warn(f"data set {data}: not used are {describe(unused)}", RunWarning, stacklevel=3)
    return {split: _read(data, root, source, group) for split, (source, group) in splits.items()}


def read_columns(data: str, columns: Collection[str]) -> RawRows:
    """The rows of a table that is no data set: its files may be called after any split, but all after the same one.

    Args:
        data: a file, or a folder of files of one kind.
        columns: that are read; whatever others there are.

    Raises:
        SeekingError: a file cannot be read, these columns differ between the files, or they are not of one table.
    """
    root, _, tables = _tables_of(data)
    if len(tables) > 1:
        several = {split_of(str(root), file): file for file in tables}
        if len(several) > 1:
            raise SeekingError(
                f"data set {data}: there are several tables, such as {shown([*several.values()], NAMED_FILES)}; give "
                "the file of one"
            )
    return _read(data, root, source_of(tables), tables, columns)


def _tables_of(data: str) -> tuple[Path, list[str], list[str]]:
    """The folder that a data set lies in, the files of the data set, and which of these are tables.

    Raises:
        SeekingError: there is nothing of this name, it is neither a file nor a folder, or the tables are not of one
            kind.
    """
    path = user_path(data)
    if path.is_dir():
        root, held = path, files(walk(str(path)))
    else:
        with reading(path):
            check_regular(path)
        root, held = path.parent, [path.name]
    kinds = sorted({Path(file).suffix.lower() for file in held} & {*KINDS})
    if len(kinds) != 1:
        content = " and ".join(kinds) if kinds else describe(held) or "nothing"
        raise SeekingError(
            f"data set {data}: a table is a CSV or parquet file, or a folder of files of one of these kinds; here is "
            f"{content}"
        )
    return root, held, [file for file in held if file.lower().endswith(kinds[0])]


def _chosen(
    data: str, splits: dict[str, tuple[str, list[str]]], tables: list[str], chosen: Mapping[str, str]
) -> tuple[dict[str, tuple[str, list[str]]], list[str]]:
    """The chosen splits, those that are left, and the files that are not used."""
    known = {**{file: (file, [file]) for file in tables}, **splits}
    for split, name in chosen.items():
        if name not in known:
            raise unknown(f"{split}_split of {data}", name, known)
    taken = {split: known[name] for split, name in chosen.items()}
    used = [file for _, group in taken.values() for file in group]
    if len({*used}) < len(used):
        raise SeekingError(
            f"data set {data}: train_split {chosen['train']} and test_split {chosen['test']} have a file in common; "
            "name two, or hold rows out of the training split with validation"
        )
    left = {name: split for name, split in splits.items() if name not in taken and not {*used} & {*split[1]}}
    kept = {*used, *(file for _, group in left.values() for file in group)}
    if "train" not in taken and "train" not in left:
        raise SeekingError(f"data set {data}: its only training file is chosen as test_split; name it in train_split")
    return {**taken, **left}, [file for file in tables if file not in kept]


def _read(data: str, root: Path, source: str, names: list[str], columns: Collection[str] | None = None) -> RawRows:
    """Some files as one table: these columns, or all.

    Raises:
        SeekingError: a file cannot be read, its columns have no names, or they are not those of the others.
    """
    import pyarrow as pa

    tables: list[Any] = []
    index: tuple[str, ...] = ()
    for name in names:
        try:
            with naming(f"data set {data}: {name}"):
                read = _read_csv if name.lower().endswith(CSV) else _read_parquet
                table = read(root / name, columns)
                _check_names(table.column_names, known=columns is not None)
                table, of_file = without_index(table)
        except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
            # pyarrow counts the line of names as a row.
            text = re.sub(r"Row #(\d+)", lambda match: f"row {int(match[1]) - 1}", str(error))
            advice = "save it as UTF-8" if "utf" in text.lower() else "repair it"
            raise SeekingError(f"data set {data}: {name} cannot be read ({text}); {advice}") from error
        if tables and {*table.column_names} != {*tables[0].column_names}:
            differing = sorted({*table.column_names} ^ {*tables[0].column_names})
            raise SeekingError(
                f"data set {data}: {names[0]} and {name} have not the same columns: one of them lacks "
                f"{shown(differing, NAMED_FILES)}"
            )
        tables.append(table)
        index = (*index, *(each for each in of_file if each not in index))
    counts = [(name, len(table)) for name, table in zip(names, tables, strict=True)]
    try:
        joined = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise SeekingError(f"data set {data}: the columns of {source} are of different types ({error})") from error
    return RawRows(source, joined, counts, np.arange(len(joined)), index)


def _read_csv(path: Path, columns: Collection[str] | None) -> Any:
    """These columns of a CSV file, or all, as strings."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    with path.open("rb") as file:
        first = file.readline().decode("utf-8-sig")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=first.count)
    names = next(csv.reader([first], delimiter=delimiter), [])
    if not names and path.stat().st_size > len(first.encode()):
        raise SeekingError("its first line, which names the columns, is empty; remove it")
    if not names:
        raise SeekingError("there is nothing in it")
    _check_quotes(path.read_bytes().removeprefix(codecs.BOM_UTF8), delimiter.encode())
    used = [name for name in names if columns is None or name.strip() in columns]
    table = arrow_csv.read_csv(
        path,
        read_options=arrow_csv.ReadOptions(use_threads=False),  # With threads, errors do not name the row.
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        # Others than strings may be in any encoding.
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()) | dict.fromkeys(used, pa.string())
        ),
    )
    table = table.rename_columns([name.strip() for name in names])
    return table.select([place for place, name in enumerate(names) if name in used])


def _check_quotes(content: bytes, delimiter: bytes) -> None:
    """Refuse a quote that is not closed where its value ends: pyarrow takes the rows that follow for part of the value.

    Args:
        content: of a CSV file.
        delimiter: between its columns.
    """
    ends = re.escape(delimiter) + rb"\r\n"
    quoted = re.compile(rb'"(?<![^%b]")([^"]*+(?:""[^"]*+)*+)("[ ]*+([^%b])?)?' % (ends, ends))
    for match in quoted.finditer(content):
        value, closed, more = match.groups()
        if not closed or (more and b"\n" in value):  # Text after it on one line costs no row.
            begin, breaks = content.count(b"\n", 0, match.start()) + 1, value.count(b"\n")
            end = f"closed within another value, in line {begin + breaks:,}" if closed else "never closed"
            start = value.partition(b"\n")[0].strip()[:SHOWN].decode(errors="replace")
            raise SeekingError(
                f"line {begin:,}: the quote before {start!r} is {end}, so the rows after it would be part of its "
                "value; close it, or, where a quote is meant, write it twice within a quoted value"
            )


def rows_of(split: Split, place: str) -> RawRows:
    """The rows of a split that ``datasets`` has read.

    Args:
        split: of one data set.
        place: where a row is, for messages.

    Raises:
        SeekingError: a column has no name, or two have the same.
    """
    (held,) = split.rows
    with naming(place):
        table = _plain(held.with_format("arrow")[:], held.features)
        _check_names(table.column_names)
        table, index = without_index(table)
    return RawRows(split.source, table, [(place, len(table))], np.arange(len(table)), index)


def _read_parquet(path: Path, columns: Collection[str] | None) -> Any:
    """These columns of a parquet file, or all."""
    import datasets
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read(columns=None if columns is None else [*columns])
    return _plain(table, datasets.Features.from_arrow_schema(table.schema))


def _plain(table: Any, features: Mapping[str, Any]) -> Any:
    """A table in which classes that have names are strings."""
    import datasets
    import pyarrow as pa

    for number, (name, feature) in enumerate(features.items()):
        if isinstance(feature, datasets.ClassLabel):
            codes = [code if code is not None and code >= 0 else None for code in table.column(number).to_pylist()]
            names = pa.array(feature.names, pa.string()).take(pa.array(codes, pa.int64()))
            table = table.set_column(number, name, names)
        elif pa.types.is_string_view(table.schema.field(number).type):  # No rows can be taken of these.
            table = table.set_column(number, name, table.column(number).cast(pa.large_string()))
    return table


def _check_names(names: Sequence[str], known: bool = False) -> None:
    """Refuse names of columns that two have, and numbers, which are no names unless these are known."""
    if twice := sorted({name for name in names if names.count(name) > 1 and name}):
        raise SeekingError(f"several columns are called {shown(twice, NAMED_FILES)}; rename them")
    if not known and all(name.replace(".", "").replace("-", "").isdigit() for name in names):
        raise SeekingError(
            f"its first line holds numbers ({shown(names, NAMED_FILES)}), not the names of columns; add a line of names"
        )
