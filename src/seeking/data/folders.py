"""The files of a folder, and the names of splits."""

import os
import posixpath
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from seeking.checkpointing import manifest
from seeking.errors import RunWarning, SeekingError
from seeking.files import reason

IMAGE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),  # Those of ImageFolder.
    *(".avif", ".gif", ".jfif", ".jp2"),
)
SPLIT_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
}
LEFT_BY_PROGRAMS = frozenset(
    {"__macosx", ".ds_store", "@eadir", ".ipynb_checkpoints", ".thumbnails", "thumbs.db", "lost+found", "$recycle.bin"}
    | {"#recycle", "system volume information", ".trash", ".trashes", ".spotlight-v100", ".fseventsd", ".git", ".cache"}
    | {"__pycache__"}
)
"""Folders that zip tools, file managers, network disks and notebooks leave, in lower case."""
RESOURCE_FORK = "._"
"""Files that macOS leaves beside others begin with this, and have their extension."""
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
        folders: that the files of each data set lie in, beside the images that they name; empty if they name none.
    """

    source: str
    rows: Sequence[Any]
    folders: Sequence[str] = ()

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

    Runs of this program in it are left out, with folders that hold nothing else: their figures are no images of a
    class. A warning names them.

    Raises:
        SeekingError: a folder cannot be read, a name is not UTF-8, a link leads nowhere or to a folder that it lies
            in, or something is neither a file nor a folder.
    """
    tree: Tree = {}
    runs: list[str] = []
    pending: list[tuple[str, tuple[str, ...]]] = [("", ())]
    while pending:
        folder, above = pending.pop()
        path = f"{root}/{folder}"
        real = os.path.realpath(path)
        if real in above:
            raise SeekingError(f"data set {root}: {folder} is a link to a folder that it lies in; remove it")
        try:
            entries = [*os.scandir(path)]
            if folder and any(entry.name == manifest.NAME for entry in entries) and manifest.kind_of(Path(path)):
                runs.append(folder)
                continue
            tree[folder] = []
            for entry in entries:
                inner = join(folder, entry.name)
                if entry.is_dir():
                    pending.append((inner, (*above, real)))
                elif entry.is_file():
                    tree[folder].append(entry.name)
                else:
                    kind = "a link that leads nowhere" if entry.is_symlink() else "neither a file nor a folder"
                    raise SeekingError(f"data set {root}: {shown([inner], 1)} is {kind}; repair or remove it")
        except OSError as error:
            raise SeekingError(f"data set {root}: {folder or root} cannot be read ({reason(error)})") from error
        tree[folder].sort()
        if not all(map(_is_utf8, (folder, *tree[folder]))):
            raise SeekingError(f"data set {root}: a name in {folder!a} is not UTF-8; rename it")
    for run in runs:
        outer = posixpath.dirname(run)
        while outer and not tree.get(outer) and not any(name.startswith(f"{outer}/") for name in tree):
            tree.pop(outer, None)
            outer = posixpath.dirname(outer)
    if runs:
        told = f"data set {root}: runs of seeking in it are no data: {shown(sorted(runs), NAMED_FILES)}"
        warnings.warn(told, RunWarning, stacklevel=3)
    return tree


def files(tree: Tree) -> list[str]:
    """The paths of all files."""
    return [join(folder, name) for folder in sorted(tree) for name in tree[folder]]


def is_image(path: str) -> bool:
    """Whether the extension is that of an image."""
    return path.lower().endswith(IMAGE_EXTENSIONS)


def left_by_programs(path: str) -> str | None:
    """The folder or file on a path that a program has left beside the data, by its name; None if there is none."""
    parts = path.split("/")
    for place, part in enumerate(parts):
        if part.lower() in LEFT_BY_PROGRAMS or (place == len(parts) - 1 and part.startswith(RESOURCE_FORK)):
            return "/".join(parts[: place + 1])
    return None


def join(folder: str, name: str) -> str:
    """The path of what lies in a folder of the tree."""
    return f"{folder}/{name}" if folder else name


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
