"""Classes of images that a text file lists, as for the validation images of Tiny ImageNet."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

MAX_BYTES = 100 * 2**20


def annotated(
    root: str, source: str, folders: Mapping[str, Sequence[str]], files: Sequence[str], classes: Collection[str]
) -> tuple[dict[str, list[str]], str] | None:
    """Find a text file in the folder of a split that lists the class of each of its images.

    Each line begins with the name of an image and the name of its class, separated by white space or a comma. The file
    must list every image of the split, and no class that is not one of the training split.

    Args:
        root: the folder of the data set.
        source: the folder of the split.
        folders: the paths of the images in each folder of the split.
        files: the paths of other files.
        classes: the names of the training classes.

    Returns:
        The paths of the images of each class, and the path of the file; None if there is no such file.
    """
    images = {PurePosixPath(path).name: path for held in folders.values() for path in held}
    for file in files:
        if str(PurePosixPath(file).parent) != source or not file.endswith((".txt", ".csv", ".tsv")):
            continue
        listed = _read(f"{root}/{file}")
        named = {name: listed[name] for name in images.keys() & listed.keys()}
        if images and len(named) == len(images) == sum(map(len, folders.values())) and {*named.values()} <= {*classes}:
            found: dict[str, list[str]] = {}
            for name, path in sorted(images.items()):
                found.setdefault(named[name], []).append(path)
            return found, file
    return None


def _read(path: str) -> dict[str, str]:
    """The second word of each line by the name in the first one."""
    listed: dict[str, str] = {}
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            return {}
        with Path(path).open(encoding="utf-8") as lines:
            for line in lines:
                words = line.replace(",", " ").split()
                if len(words) > 1:
                    listed[PurePosixPath(words[0]).name] = words[1]
    except (OSError, UnicodeDecodeError):
        return {}
    return listed
