"""Local data: which split and class the files of a folder belong to.

The rule for images is that of torchvision's ``ImageFolder``: the top folder is the split, the next one the class, and
all images below it belong to the class. Without a folder for a split, the classes are at the top. Links are followed.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from seeking.errors import RunWarning, SeekingError

IMAGE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),  # Those of ImageFolder.
    *(".avif", ".gif", ".jfif", ".jp2"),
)
SPLIT_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
}
NAMED_FILES = 3
"""How many files of each kind a message names."""

Tree = dict[str, list[str]]
"""The sorted names of the files in each folder, by the folder's path from the root; the path of the root is empty."""


@dataclass(frozen=True)
class Split:
    """A split of a data set.

    Attributes:
        source: where it comes from, for messages.
        rows: Hugging Face data sets, one after the other; each may number the classes in its own way.
    """

    source: str
    rows: Sequence[Any]

    def __len__(self) -> int:
        return sum(map(len, self.rows))


Splits = dict[str, Split]
"""Splits by standard name: train, test, validation."""


def standard_split(name: str) -> str | None:
    """The standard name of a split in any usual spelling; None if no split is called so."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def shown(names: Sequence[str], most: int) -> str:
    """The first names, fit for a terminal."""
    texts = [name if name.isprintable() else ascii(name) for name in names[:most]]
    return ", ".join([*texts, "…"] if len(names) > most else texts)


def describe(files: Sequence[str]) -> str:
    """How many files of each kind, with the first names."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in files:
        kinds[PurePosixPath(path).suffix.lower() or "without extension"].append(path)
    return "; ".join(
        f"{len(named):,} {shown([kind], 1)} ({shown(named, NAMED_FILES)})"
        for kind, named in sorted(kinds.items(), key=lambda item: -len(item[1]))
    )


def walk(root: str) -> Tree:
    """List all files below a folder; links are followed.

    Raises:
        SeekingError: a folder cannot be read, a name is not UTF-8, a link leads nowhere or to a folder that it lies
            in, or something is neither a file nor a folder.
    """
    tree: Tree = {}
    pending: list[tuple[str, tuple[str, ...]]] = [("", ())]
    while pending:
        folder, above = pending.pop()
        path = f"{root}/{folder}"
        real = os.path.realpath(path)
        if real in above:
            raise SeekingError(f"data set {root}: {folder} is a link to a folder that it lies in; remove it")
        tree[folder] = []
        try:
            for entry in os.scandir(path):
                inner = _join(folder, entry.name)
                if entry.is_dir():
                    pending.append((inner, (*above, real)))
                elif entry.is_file():
                    tree[folder].append(entry.name)
                else:
                    kind = "a link that leads nowhere" if entry.is_symlink() else "neither a file nor a folder"
                    raise SeekingError(f"data set {root}: {shown([inner], 1)} is {kind}; repair or remove it")
        except OSError as error:
            raise SeekingError(f"data set {root}: {folder or root} cannot be read ({error.strerror})") from error
        tree[folder].sort()
        if not all(map(_is_utf8, (folder, *tree[folder]))):
            raise SeekingError(f"data set {root}: a name in {folder!a} is not UTF-8; rename it")
    return tree


def files(tree: Tree) -> list[str]:
    """The paths of all files."""
    return [_join(folder, name) for folder in sorted(tree) for name in tree[folder]]


def is_image(path: str) -> bool:
    """Whether the extension is that of an image."""
    return path.lower().endswith(IMAGE_EXTENSIONS)


def image_folder(root: str, tree: Tree) -> tuple[Splits, list[str]]:
    """Assign the images of a folder to splits and classes.

    A split without folders of classes is not used, and neither is a test or validation split without a class of the
    training split if the other one has some.

    Returns:
        The splits, and the files that are not used.

    Raises:
        SeekingError: two folders are the same split, or the training split is missing or has no classes.
    """
    sources: dict[str, str] = {}
    for top in sorted(folder for folder in tree if folder and "/" not in folder):
        split = standard_split(top)
        if split in sources:
            raise SeekingError(f"data set {root}: {sources[split]} and {top} are both the {split} split; keep one")
        if split:
            sources[split] = top
    if sources and "train" not in sources:
        raise SeekingError(
            f"data set {root}: no train split; it has {', '.join(sources.values())}. A folder of such a name at the "
            "top is a split: add a folder train, or, if all folders are classes, move them into a folder train"
        )
    classes: dict[str, dict[str, list[str]]] = defaultdict(dict)
    unused: list[str] = []
    for folder in sorted(tree):
        parts = folder.split("/") if folder else []
        holder = "train" if not sources else standard_split(parts[0]) if parts else None
        inside = parts[1:] if sources else parts
        images = classes[holder].setdefault(inside[0], []) if holder and inside else None
        for name in tree[folder]:
            (unused if images is None or not is_image(name) else images).append(_join(folder, name))
    if not sources and len(classes["train"]) > 1:
        _warn_of_splits(root, tree)
    if not classes["train"]:
        raise SeekingError(
            f"data set {root}: {sources.get('train', 'it')} has no folders of classes; put the images of each class "
            "into a folder of its name, such as train/cat"
        )
    common = {split for split, held in classes.items() if held.keys() & classes["train"].keys()}
    for split in {"test", "validation"} & classes.keys() - common if len(common) > 1 else ():
        unused += [path for images in classes.pop(split).values() for path in images]
    return {
        split: Split(sources.get(split, root), [_rows(root, held)]) for split, held in classes.items() if held
    }, sorted(unused)


def _warn_of_splits(root: str, tree: Tree) -> None:
    """Tell of classes that look like splits, because all of them hold the same folders."""
    inner: dict[str, set[str]] = defaultdict(set)
    for folder in tree:
        if folder.count("/") == 1:
            top, below = folder.split("/")
            inner[top].add(below)
    tops = sorted(folder for folder in tree if folder and "/" not in folder)
    same = set.intersection(*(inner[top] for top in tops))
    if len(same) > 1:
        warnings.warn(
            f"data set {root}: {shown(tops, NAMED_FILES)} are classes, and all of them hold the folders "
            f"{shown(sorted(same), NAMED_FILES)}; if they are splits, call them train and test",
            RunWarning,
            stacklevel=2,
        )


def _rows(root: str, classes: dict[str, list[str]]) -> Any:
    import datasets
    import pyarrow as pa

    names = sorted(classes)
    paths = pa.array([f"{root}/{path}" for name in names for path in classes[name]], pa.string())
    images = pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), paths], names=["bytes", "path"])
    labels = pa.array(np.repeat(np.arange(len(names)), [len(classes[name]) for name in names]))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset(pa.table([images, labels], schema=features.arrow_schema))


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
