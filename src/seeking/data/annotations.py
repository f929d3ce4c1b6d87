"""Classes of images that a text file lists, as for the validation images of Tiny ImageNet."""

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from seeking.errors import SeekingError

MAX_BYTES = 100 * 2**20

TEXTS = (".txt", ".csv", ".tsv")

Row = tuple[str, ...]
"""The fields of a line after the name of the image."""

Listed = dict[str, set[Row]]
"""By the name of an image."""


def annotated(
    root: str, source: str, folders: Mapping[str, Sequence[str]], files: Sequence[str], classes: Collection[str]
) -> tuple[dict[str, list[str]], str] | None:
    """Find a text file in the folder of a split that lists the class of each of its images.

    Each line begins with the name of an image and the name of its class, separated by a tab, a comma, or other white
    space. The file must list every image of the split, and no class that is not one of the training split. What follows
    must not be classes as well, such as a width where the classes are numbers.

    Args:
        root: the folder of the data set.
        source: the folder of the split.
        folders: the paths of the images in each folder of the split.
        files: the paths of other files.
        classes: the names of the training classes.

    Returns:
        The paths of the images of each class, and the path of the file; None if there is no such file.

    Raises:
        SeekingError: an image is listed with two classes, in one file or in two; or a file has several columns that
            may be the classes.
    """
    known = {*classes}
    images = {PurePosixPath(path).name: path for held in folders.values() for path in held}
    lists: dict[str, Listed] = {}
    for file, listed in _texts(root, source, files, known):
        named = {name: listed[name] for name in images.keys() & listed.keys()}
        complete = images and len(named) == len(images) == sum(map(len, folders.values()))
        rows = [row for of_image in named.values() for row in of_image]
        if complete and {row[0] for row in rows} <= known:
            _check_columns(root, file, rows, known)
            lists[file] = named
    if not lists:
        return None
    by_class: dict[str, list[str]] = {}
    for name, path in sorted(images.items()):
        labels = {row[0] for named in lists.values() for row in named[name]}
        if len(labels) > 1:
            raise SeekingError(
                f"data set {root}: {' and '.join(lists)} list {name} as {' and as '.join(sorted(labels))}; keep one "
                "line for each image"
            )
        by_class.setdefault(labels.pop(), []).append(path)
    return by_class, next(iter(lists))


def nearly(root: str, source: str, folders: Mapping[str, Sequence[str]], files: Sequence[str]) -> str:
    """What a text file in the folder of a split lacks to list its images, for messages; empty if there is no such file.

    Args:
        root: the folder of the data set.
        source: the folder of the split.
        folders: the paths of the images in each folder of the split.
        files: the paths of all files.
    """
    images = {PurePosixPath(path).name for held in folders.values() for path in held}
    for file, listed in _texts(root, source, files, set()):
        lacking = sorted(images - listed.keys())
        if 0 < len(lacking) < len(images):
            return f"{file} lists {len(images) - len(lacking):,} of {len(images):,} images, and not {lacking[0]}"
    return ""


def _texts(root: str, source: str, files: Sequence[str], classes: set[str]) -> Iterator[tuple[str, Listed]]:
    """The text files in the folder of a split, and what each lists."""
    for file in files:
        if str(PurePosixPath(file).parent) == source and file.endswith(TEXTS):
            yield file, _read(f"{root}/{file}", classes)


def _check_columns(root: str, file: str, rows: Sequence[Row], classes: set[str]) -> None:
    """Refuse a file in which another column than the first after the name holds classes alone, and others."""
    for column in range(1, min(map(len, rows))):
        other = next((row for row in rows if row[column] != row[0]), None)
        if other and {row[column] for row in rows} <= classes:
            raise SeekingError(
                f"data set {root}: in {file}, columns 2 and {column + 2} hold names of classes (such as {other[0]} and "
                f"{other[column]} in one line); keep the name of each image and its class alone"
            )


def _read(path: str, classes: set[str]) -> Listed:
    """The fields after the name in the lines of each image, by the name of its file; the first one is the class."""
    listed: Listed = {}
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            return {}
        with Path(path).open(encoding="utf-8-sig") as lines:
            for line in lines:
                name, row = _parts(line, classes)
                if row and row[0]:
                    listed.setdefault(PurePosixPath(name).name, set()).add(row)
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return listed


def _parts(line: str, classes: set[str]) -> tuple[str, Row]:
    """The name of the image, its class, and the fields that follow; the first two may hold blanks, the class also where
    blanks separate them."""
    for separator in "\t,":
        if separator in line:
            fields = [field.strip() for field in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
            return fields[0], tuple(fields[1:])
    name, *words = line.split() or [""]
    length = next((count for count in range(len(words), 0, -1) if " ".join(words[:count]) in classes), 1)
    return name, (" ".join(words[:length]), *words[length:])
