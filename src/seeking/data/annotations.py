"""Classes of images that a text file lists, as for the validation images of Tiny ImageNet."""

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from seeking.errors import SeekingError

MAX_BYTES = 100 * 2**20


def annotated(
    root: str, source: str, folders: Mapping[str, Sequence[str]], files: Sequence[str], classes: Collection[str]
) -> tuple[dict[str, list[str]], str] | None:
    """Find a text file in the folder of a split that lists the class of each of its images.

    Each line begins with the name of an image and the name of its class, separated by a tab, a comma, or other white
    space. The file must list every image of the split, and no class that is not one of the training split.

    Args:
        root: the folder of the data set.
        source: the folder of the split.
        folders: the paths of the images in each folder of the split.
        files: the paths of other files.
        classes: the names of the training classes.

    Returns:
        The paths of the images of each class, and the path of the file; None if there is no such file.

    Raises:
        SeekingError: an image is listed with two classes, in one file or in two.
    """
    images = {PurePosixPath(path).name: path for held in folders.values() for path in held}
    lists: dict[str, dict[str, set[str]]] = {}
    for file in files:
        if str(PurePosixPath(file).parent) != source or not file.endswith((".txt", ".csv", ".tsv")):
            continue
        listed = _read(f"{root}/{file}", {*classes})
        named = {name: listed[name] for name in images.keys() & listed.keys()}
        complete = images and len(named) == len(images) == sum(map(len, folders.values()))
        if complete and set[str]().union(*named.values()) <= {*classes}:
            lists[file] = named
    if not lists:
        return None
    found: dict[str, list[str]] = {}
    for name, path in sorted(images.items()):
        labels = set[str]().union(*(named[name] for named in lists.values()))
        if len(labels) > 1:
            raise SeekingError(
                f"data set {root}: {' and '.join(lists)} list {name} as {' and as '.join(sorted(labels))}; keep one "
                "line for each image"
            )
        found.setdefault(labels.pop(), []).append(path)
    return found, next(iter(lists))


def _read(path: str, classes: set[str]) -> dict[str, set[str]]:
    """The classes in the lines of each image, by the name of its file."""
    listed: dict[str, set[str]] = {}
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            return {}
        with Path(path).open(encoding="utf-8-sig") as lines:
            for line in lines:
                name, label = _parts(line, classes)
                if label:
                    listed.setdefault(PurePosixPath(name).name, set()).add(label)
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return listed


def _parts(line: str, classes: set[str]) -> tuple[str, str]:
    """The name of the image and of its class; both may hold blanks, the class also where blanks separate them."""
    for separator in "\t,":
        if separator in line:
            fields = [field.strip() for field in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
            return fields[0], fields[1] if len(fields) > 1 else ""
    name, *words = line.split() or [""]
    prefixes = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    return name, next((prefix for prefix in prefixes if prefix in classes), " ".join(words[:1]))
