"""Which split and class the images of a folder belong to.

The rule is that of torchvision's ``ImageFolder``: the top folder is the split, the next one the class, and all images
below it belong to the class. Without a folder for a split, the classes are at the top. Where images lie so deep that
other folders may be meant, the user is asked.
"""

import posixpath
import warnings
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from seeking.data.annotations import annotated, nearly
from seeking.data.folders import (
    NAMED_FILES,
    Split,
    Splits,
    Tree,
    files,
    is_image,
    join,
    left_by_programs,
    shown,
    standard_split,
)
from seeking.errors import RunWarning, SeekingError, unknown

Classes = dict[str, list[str]]
"""The paths of the images of each class."""


def image_folder(root: str, tree: Tree, chosen: Mapping[str, str] | None = None) -> tuple[Splits, list[str]]:
    """Assign the images of a folder to splits and classes.

    What programs leave beside the data is told of, but used like all else.

    A split without folders of classes is not used, and neither is a test or validation split without a class of the
    training split if the other one has some.

    Args:
        root: the folder.
        tree: its files.
        chosen: folders that the user has chosen, by standard name of the split; ``.`` is the root.

    Returns:
        The splits, and the files that are not used.

    Raises:
        SeekingError: two folders are the same split, the training split is missing or has no classes, or it is not
            clear which folders are the classes.
    """
    sources = _sources(root, tree, chosen or {})
    splits: dict[str, Classes] = {split: {} for split in sources}
    unused: list[str] = []
    for folder in sorted(tree):
        split = next((split for split, source in sources.items() if _is_within(folder, source)), None)
        inside = folder.removeprefix(sources[split]).strip("/") if split else ""
        images = splits[split].setdefault(inside.split("/")[0], []) if split and inside else None
        for name in tree[folder]:
            (unused if images is None or not is_image(name) else images).append(join(folder, name))
    for split in [split for split in splits if split != "train"]:
        if not splits[split].keys() & splits["train"].keys():
            loose = [path for path in unused if is_image(path) and path.rpartition("/")[0] == sources[split]]
            annotations = annotated(root, sources[split], {**splits[split], "": loose}, unused, splits["train"])
            if annotations:
                splits[split], file = annotations
                unused = sorted({*unused} - {file, *loose})
    if not splits["train"]:
        lists = [path for path in unused if PurePosixPath(path).stem.lower() == "metadata"]
        not_read = f" ({lists[0]} is not read)" if lists else ""
        raise SeekingError(
            f"data set {root}: {sources['train'] or 'it'} has no folders of classes{not_read}; put the images of each "
            "class into a folder of its name, such as train/cat, or name the folder that the classes are in with "
            "train_split"
        )
    _check_depth(root, sources["train"], splits["train"], named="train" in (chosen or {}))
    common = {split for split, held in splits.items() if held.keys() & splits["train"].keys()}
    for split in splits.keys() - common - {*(chosen or {})}:
        if len(common) > 1:
            unused += [path for images in splits.pop(split).values() for path in images]
        elif any(splits[split].values()):
            _refuse_other_classes(root, tree, sources, split, splits)
    _warn_of_leftovers(root, splits)
    order = [split for split in ("train", "test", "validation") if splits.get(split)]
    return {split: Split(sources[split] or root, [_rows(root, splits[split])]) for split in order}, sorted(unused)


def _sources(root: str, tree: Tree, chosen: Mapping[str, str]) -> dict[str, str]:
    """The folder of each split; that of the training split is empty if the root is it."""
    sources: dict[str, str] = {}
    for split, path in chosen.items():
        folder = "/".join(part for part in path.split("/") if part not in ("", "."))
        if folder not in tree:
            raise unknown(f"{split}_split of {root}", path, [name for name in tree if name])
        for other, source in sources.items():
            if _is_within(folder, source) or _is_within(source, folder):
                raise SeekingError(
                    f"data set {root}: {split}_split {path} and {other}_split {chosen[other]} are one in the other; "
                    "name folders that are apart"
                )
        sources[split] = folder
    for top in sorted(folder for folder in tree if folder and "/" not in folder):
        named = standard_split(top)
        overlaps = any(_is_within(top, sources[split]) or _is_within(sources[split], top) for split in chosen)
        if named is None or named in chosen or overlaps:
            continue
        if named in sources:
            raise SeekingError(f"data set {root}: {sources[named]} and {top} are both the {named} split; keep one")
        sources[named] = top
    if sources and "train" not in sources:
        raise SeekingError(
            f"data set {root}: no train split; it has {', '.join(sources.values())}. A folder of such a name at the "
            "top is a split: add a folder train, name the training split with train_split, or, if all folders are "
            "classes, move them into a folder train"
        )
    return sources or {"train": ""}


def _check_depth(root: str, source: str, classes: Classes, named: bool) -> None:
    """Tell of classes whose images lie in several folders, or refuse them if these may be the classes.

    They may if the class is the only one, or if no name says that the folder above is a split.
    """
    deep = {name: places for name, images in classes.items() if len(places := _places(images)) > 1}
    if not deep or named:
        return
    name, places = max(deep.items(), key=lambda item: len(item[1]))
    inner, held = posixpath.commonpath(places), shown(sorted(classes), NAMED_FILES)
    where = f"the images of {shown([name], 1)} lie in {len(places):,} folders ({shown(places, NAMED_FILES)})"
    if source and len(classes) > 1:
        warnings.warn(
            f"data set {root}: {where}, and those of {len(deep) - 1:,} other classes of {source} in several, too; all "
            "of them count as images of the class. If the classes are deeper, name their folder with train_split",
            RunWarning,
            stacklevel=2,
        )
        return
    if source:
        problem, ways = f"{held} is the only class in {source}", [f"train_split {inner} (and test_split likewise)"]
    elif len(classes) == 1:
        problem, ways = f"{held} is the only class", [f"data {root}/{inner}"]
    else:
        problem = f"no folder at the top has the name of a split, such as train, so the classes are {held}"
        ways = [f"train_split and test_split, folders such as {inner}, if their folders are the classes"]
    ways.append(f"train_split {source or '.'} if {held} {'is a class' if len(classes) == 1 else 'are classes'}")
    raise SeekingError(
        f"data set {root}: {problem}; but {where}, so deeper folders may be meant. Give {', or '.join(ways)}"
    )


def _warn_of_leftovers(root: str, splits: Mapping[str, Classes]) -> None:
    """Tell of images that lie where programs leave files of their own; they count as others do."""
    for classes in splits.values():
        left = {name: [path for path in images if left_by_programs(path)] for name, images in classes.items()}
        left = {name: paths for name, paths in left.items() if paths}
        if left:
            count = sum(map(len, left.values()))
            places = sorted({str(left_by_programs(path)) for paths in left.values() for path in paths})
            warnings.warn(
                f"data set {root}: {count:,} of the images are such as zip tools, file managers and notebooks leave, "
                f"in {shown(places, NAMED_FILES)}; they count as images of {shown(sorted(left), NAMED_FILES)}. Remove "
                "them if they are none of yours",
                RunWarning,
                stacklevel=3,
            )


def _refuse_other_classes(
    root: str, tree: Tree, sources: Mapping[str, str], split: str, splits: Mapping[str, Classes]
) -> None:
    """Refuse an evaluation split none of whose folders is a class; name the folder in it that has some."""
    inner: dict[str, set[str]] = {}
    for folder in tree:
        if _is_within(folder, sources[split]) and "/" in folder:
            above, _, name = folder.rpartition("/")
            inner.setdefault(above, set()).add(name)
    deeper = [folder for folder, names in sorted(inner.items()) if names & splits["train"].keys()]
    hint = f"give test_split {deeper[0]}, whose folders are" if deeper else "call the classes the same in both"
    if lacks := nearly(root, sources[split], splits[split], files(tree)):
        hint = f"{lacks}; complete it, {hint}"
    raise SeekingError(
        f"data set {root}: the training and the {split} split have no class in common: "
        f"{shown(sorted(splits['train']), NAMED_FILES)} in {sources['train'] or root} and "
        f"{shown(sorted(splits[split]), NAMED_FILES)} in {sources[split]}; {hint}, or list each image in a text file "
        f"in {sources[split]}, one line each: its name and its class"
    )


def _places(images: Sequence[str]) -> list[str]:
    """The folders that hold these images."""
    return sorted({path.rpartition("/")[0] for path in images})


def _is_within(folder: str, source: str) -> bool:
    return not source or folder == source or folder.startswith(f"{source}/")


def _rows(root: str, classes: dict[str, list[str]]) -> Any:
    import datasets
    import pyarrow as pa

    names = sorted(classes)
    paths = pa.array([f"{root}/{path}" for name in names for path in classes[name]], pa.string())
    images = pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), paths], names=["bytes", "path"])
    labels = pa.array(np.repeat(np.arange(len(names)), [len(classes[name]) for name in names]))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset(pa.table([images, labels], schema=features.arrow_schema))
