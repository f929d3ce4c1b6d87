"""Images that a table names by the paths of their files."""

import dataclasses
import functools
from typing import Any

from seeking.data.folders import Split

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


def _absolute(rows: Any, column: str, folder: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not folder or column not in rows.features:
        return rows
    values = rows.select_columns([column]).with_format("arrow")[:][column]
    values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    of_struct = pa.types.is_struct(values.type) and {"bytes", "path"} <= {field.name for field in values.type}
    if of_struct:
        content, paths = pc.struct_field(values, "bytes"), pc.struct_field(values, "path")
    elif str(values.type) in PATHS:
        content, paths = pa.nulls(len(values)), values
    else:
        return rows
    if str(paths.type) not in PATHS:
        return rows
    of_kind = functools.partial(pa.scalar, type=paths.type)
    relative = pc.and_(pc.is_null(content), pc.invert(pc.match_substring_regex(paths, ABSOLUTE)))
    relative = pc.fill_null(relative, pa.scalar(False))
    if not pc.any(relative).as_py():
        return rows
    joined = pc.if_else(relative, pc.binary_join_element_wise(of_kind(folder), paths, of_kind("/")), paths)
    if of_struct:
        joined = pa.StructArray.from_arrays([content, joined], ["bytes", "path"], mask=pc.is_null(values))
    feature, old = rows.features[column], f"{column} as stored"  # Without any column, rows would lose their number.
    return rows.rename_column(column, old).add_column(column, joined, feature=feature).remove_columns([old])
