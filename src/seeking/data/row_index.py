"""Row indices: pandas writes one beside the columns of a table; it counts the rows, and says nothing else of them."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from seeking.errors import SeekingError

IN_PARQUET = re.compile(r"__index_level_\d+__")
"""The names that pandas gives an index in parquet files; in CSV, the index has none."""
READ_AGAIN = re.compile(r"Unnamed: 0(\.\d+)*")
"""The names that pandas gives the index of a CSV file when it reads the file."""


def without_index(table: Any) -> tuple[Any, tuple[str, ...]]:
    """A table without a row index that has no name of its own, and which columns these were, for messages.

    Args:
        table: of pyarrow, as a file has it.

    Raises:
        SeekingError: another column has no name.
    """
    names = [name.strip() for name in table.column_names]
    index = {place: f"{name} of pandas" for place, name in enumerate(names) if IN_PARQUET.fullmatch(name)}
    if names and not names[0] and _counts(table.column(0)):
        index[0] = "column 1, which has no name"
    nameless = [place for place, name in enumerate(names) if not name and place not in index]
    if nameless:
        place = nameless[0]
        hint = " (a row index needs none, but this one does not count up by one)" if not place else ""
        raise SeekingError(
            f"column {place + 1} has no name{hint}; give it one, and name it in ignore_columns if it is not to be used"
        )
    kept = [place for place in range(len(names)) if place not in index]
    return (table.select(kept) if index else table), tuple(index.values())


def read_again(table: Any, lengths: Sequence[int]) -> Iterator[str]:
    """Names of the columns that were a row index before pandas read and wrote the table.

    Which these are, all training rows say: in a few rows, any numbers may count up.

    Args:
        table: of pyarrow, of one or several files.
        lengths: numbers of rows in each file.
    """
    begins = [sum(lengths[:place]) for place in range(len(lengths))]
    for name in filter(READ_AGAIN.fullmatch, table.column_names):
        column = table.column(name)
        if all(_counts(column.slice(*part)) for part in zip(begins, lengths, strict=True)):
            yield name


def _counts(column: Any) -> bool:
    """Whether a column of pyarrow holds integers, each larger by one than that before it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
    elif not pa.types.is_integer(column.type):
        return False
    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return not numbers.null_count and bool((numbers.to_numpy()[1:] - numbers.to_numpy()[:-1] == 1).all())
