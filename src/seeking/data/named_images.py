"""Images that a table names by the paths of their files."""

import dataclasses
import functools
import operator
from typing import Any

from seeking.data.folders import Split, Splits, is_image

PATHS = ("string", "large_string")
ABSOLUTE = r"^/|://"


def beside(split: Split, column: str) -> Split:
    """The same split; relative paths of its images are those beside the file that names them.

    Args:
        split: whose images may be paths, in text or without bytes of their own.
        column: of the images.
    """
    pairs = zip(split.rows, split.folders or [""] * len(split.rows), strict=True)
    return dataclasses.replace(split, rows=[_absolute(rows, column, folder) for rows, folder in pairs])


def names_images(splits: Splits) -> bool:
    """Whether the first row of a split names an image by its path, so that images beside it are not left out."""
    held = [rows.with_format("arrow")[:1] for split in splits.values() for rows in split.rows]
    rows = [row for first in held for row in first.to_pylist()]
    values = [value for row in rows for value in row.values()]
    paths = [value.get("path") for value in values if isinstance(value, dict) and value.get("bytes", b"") is None]
    return any(isinstance(text, str) and is_image(text) for text in [*values, *paths])


def _absolute(rows: Any, column: str, folder: str) -> Any:
    import pyarrow as pa

    if not folder or column not in rows.features:
        return rows
    # Chunk by chunk, since not all bytes of a large data set fit into one array.
    chunks = rows.select_columns([column]).with_format("arrow")[:][column].chunks
    joined = [_joined(chunk, folder) for chunk in chunks]
    if all(map(operator.is_, joined, chunks)):
        return rows
    feature, old = rows.features[column], f"{column} as stored"  # Without any column, rows would lose their number.
    joined = pa.chunked_array(joined)
    return rows.rename_column(column, old).add_column(column, joined, feature=feature).remove_columns([old])


def _joined(values: Any, folder: str) -> Any:
    """The same array, if it holds no relative paths; else one with paths in this folder."""
    import pyarrow as pa
    import pyarrow.compute as pc

    of_struct = pa.types.is_struct(values.type) and {field.name for field in values.type} == {"bytes", "path"}
    if of_struct:
        content, paths = pc.struct_field(values, "bytes"), pc.struct_field(values, "path")
    else:
        content, paths = pa.nulls(len(values)), values
    if str(paths.type) not in PATHS:
        return values
    relative = pc.and_(pc.is_null(content), pc.invert(pc.match_substring_regex(paths, ABSOLUTE)))
    relative = pc.fill_null(relative, pa.scalar(False))
    if not pc.any(relative).as_py():
        return values
    of_kind = functools.partial(pa.scalar, type=paths.type)
    joined = pc.if_else(relative, pc.binary_join_element_wise(of_kind(folder), paths, of_kind("/")), paths)
    if of_struct:
        return pa.StructArray.from_arrays([content, joined], ["bytes", "path"], mask=pc.is_null(values))
    return joined
