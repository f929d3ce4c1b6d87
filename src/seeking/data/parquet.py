"""Folders of parquet files, and single files."""

import glob
import itertools
import re
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from seeking.data.folders import NAMED_FILES, Split, Splits, shown, standard_split
from seeking.errors import SeekingError


def parquet_files(root: str, files: list[str]) -> tuple[Splits, list[str]]:
    """Read parquet files; their splits are as ``split_files`` says.

    Args:
        root: the folder.
        files: paths of the files in it.

    Returns:
        The splits, and the files that are not used.

    Raises:
        SeekingError: see ``split_files``; or a file cannot be read.
    """
    named, unused = split_files(root, files)
    return {split: Split(source_of(group), *_read(root, group)) for split, group in named.items()}, unused


def source_of(files: list[str]) -> str:
    """Where a split comes from, for messages."""
    return files[0] + (f" and {len(files) - 1:,} more" if len(files) > 1 else "")


def split_files(root: str, files: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The files of each split.

    The split is a word of the file's name, or of the name of the nearest folder that has such a word. If no file has a
    split, all are training data.

    Args:
        root: the folder.
        files: paths of the files in it.

    Returns:
        The files by split, and those that are not used.

    Raises:
        SeekingError: a name has words of several splits, there is no training split, or the folder holds several data
            sets.
    """
    named: dict[str, list[str]] = defaultdict(list)
    parents, unused = set(), []
    for file in files:
        split, parent = split_of(root, file)
        if split is None:
            unused.append(file)
        else:
            named[split].append(file)
            parents.add(parent)
    suffix = PurePosixPath(files[0]).suffix
    if not named:
        if len(unused) > 1 and any("train" in file.lower() for file in unused):
            raise SeekingError(
                f"data set {root}: the splits of {shown(unused, NAMED_FILES)} are not known; rename the files, such as "
                f"train{suffix} and test{suffix}"
            )
        named["train"], unused = unused, []
    if "train" not in named:
        raise SeekingError(
            f"data set {root}: no train split; it has {', '.join(named)}. Rename the files of the training split, "
            f"such as train{suffix}"
        )
    if len(parents) > 1:
        raise SeekingError(
            f"data set {root}: there are several data sets, in {', '.join(sorted(p or '.' for p in parents))}; give "
            "the folder of one"
        )
    return dict(named), unused


def split_of(root: str, file: str) -> tuple[str | None, str]:
    """The split of a file, by its standard name, and the folder that all splits are in.

    Raises:
        SeekingError: a name has words of several splits.
    """
    parts = PurePosixPath(file).with_suffix("").parts
    for depth in reversed(range(len(parts))):
        splits = {split for word in re.split(r"[\W\d_]+", parts[depth]) if (split := standard_split(word))}
        if len(splits) > 1:
            raise SeekingError(
                f"data set {root}: {file} has the names of several splits ({', '.join(sorted(splits))}); rename it"
            )
        if splits:
            return splits.pop(), "/".join(parts[:depth])
    return None, ""


def _read(root: str, files: list[str]) -> tuple[list[Any], list[str]]:
    """One data set for each sequence of files of a folder with the same columns, including the names of their classes.

    Returns:
        The data sets, and the folder of each.

    Raises:
        SeekingError: a file is not one of parquet, or none of them holds a row.
    """
    import datasets
    import pyarrow.parquet as pq

    paths = []
    for file in files:
        try:
            if pq.read_metadata(f"{root}/{file}").num_rows:
                paths.append(f"{root}/{file}")
        except Exception as error:
            raise SeekingError(f"data set {root}: {file} cannot be read as parquet ({error}); repair it") from error
    if not paths:
        raise SeekingError(f"data set {root}: there is no row in {shown(files, NAMED_FILES)}; remove it, or fill it")
    groups = [
        (folder, [glob.escape(path) for path in group])
        for (folder, _), group in itertools.groupby(
            paths,
            lambda path: (str(PurePosixPath(path).parent), datasets.Features.from_arrow_schema(pq.read_schema(path))),
        )
    ]
    rows = [datasets.load_dataset("parquet", data_files={"train": group}, split="train") for _, group in groups]
    return rows, [folder for folder, _ in groups]
