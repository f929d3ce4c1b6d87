"""The splits of a data set, from the Hugging Face hub or a folder."""

import contextlib
import difflib
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from seeking.data.folders import Split, Splits, describe, files, is_image, standard_split, walk
from seeking.data.image_folder import image_folder
from seeking.data.named_images import names_images
from seeking.data.parquet import parquet_files
from seeking.data.table_files import CSV
from seeking.errors import RunWarning, SeekingError, unknown
from seeking.files import user_path

SAVED = ("dataset_dict.json", "state.json")
"""What ``save_to_disk`` writes into the folder of several splits, or of one."""


def read(name: str, chosen: Mapping[str, str] | None = None, subset: str | None = None) -> Splits:
    """Read all splits of a data set.

    A folder is one that ``save_to_disk`` of ``datasets`` has written, or one of parquet files if it holds any, and else
    one of images; other formats are left to ``datasets``.
    Files that are not used are told of in a warning.

    Args:
        name: of a data set on the Hugging Face hub, a folder, or a parquet file.
        chosen: what the user has chosen as ``train`` or ``test``: the names of splits, or, in a folder of images, the
            paths of folders.
        subset: of a data set on the hub.

    Raises:
        SeekingError: the data set does not exist, cannot be read, has no training split, or not the chosen ones; a
            subset of a folder or file is asked for.
    """
    if not name.strip():  # As a path it would be the current folder.
        raise SeekingError("data is empty; give the name of a data set, a folder or a parquet file")
    path = user_path(name)
    if not path.exists():
        return named(name, chosen or {}, ["digits"], ["cifar10", "cifar100", "mnist", "fashion_mnist"], subset)
    refuse_subset(name, subset)
    with _in_words(name, path):
        splits = _local(path.absolute(), chosen or {})
    return _with_training(name, splits)


def refuse_subset(name: str, subset: str | None) -> None:
    """Raise a ``SeekingError`` if a subset of what is on this machine is asked for."""
    if subset is not None:
        raise SeekingError(f"subset is {subset}, but {name} is on this machine; give the folder of the subset as data")


def named(
    name: str,
    chosen: Mapping[str, str],
    on_board: Collection[str],
    on_hub: Collection[str] = (),
    subset: str | None = None,
) -> Splits:
    """Read all splits of a data set on the Hugging Face hub.

    Args:
        name: of the data set.
        chosen: the names of splits that the user has chosen as ``train`` or ``test``.
        on_board: names of data sets that need no network, one of which may have been meant.
        on_hub: names of others.
        subset: of the data set, if it has several.

    Raises:
        SeekingError: it does not exist, cannot be read or reached, has no training split, or not the chosen ones.
    """
    path = user_path(name)
    if name.startswith((".", "/", "~")):
        raise SeekingError(f"data set {name}: no such folder")
    with _in_words(name, path, on_board, on_hub):
        splits = _chosen(_any_format(name, subset), name, chosen)
    return _with_training(name, splits)


def is_saved(path: Path) -> bool:
    """Whether this is a folder that ``save_to_disk`` of ``datasets`` has written."""
    return any((path / file).is_file() for file in SAVED)


def saved(path: Path, chosen: Mapping[str, str]) -> Splits:
    """Read all splits of a folder that ``save_to_disk`` has written; without splits, it is the training split.

    Raises:
        SeekingError: it cannot be read, has no training split, or not the chosen ones.
    """
    import datasets

    name = str(path)
    with _in_words(name, path):
        held: Any = datasets.load_from_disk(name)
        if isinstance(held, datasets.Dataset):
            held = {standard_split(str(held.split)) or "train": held}
        splits = _chosen(_standard({split: rows.with_format(None) for split, rows in held.items()}), name, chosen)
    return _with_training(name, splits)


@contextlib.contextmanager
def _in_words(name: str, path: Path, on_board: Collection[str] = (), on_hub: Collection[str] = ()) -> Iterator[None]:
    """What ``datasets`` and the hub's client raise, as errors that say what to do."""
    import datasets
    from huggingface_hub.errors import HFValidationError

    try:
        with _quiet():
            yield
    except SeekingError:
        raise
    except Exception as error:
        if isinstance(error, ConnectionError) and not path.exists():
            if difflib.get_close_matches(name, on_board):
                raise unknown("data set", name, on_board) from error
            raise SeekingError(
                f"data set {name}: no such folder in {Path.cwd()}, and the hub cannot be reached ({error}); check the "
                "network and HF_HUB_OFFLINE, or give a folder"
            ) from error
        if isinstance(error, HFValidationError):
            raise SeekingError(
                f"data set {name}: no such folder in {Path.cwd()}, and no data set of the hub can be called so; give "
                "the path of the folder"
            ) from error
        if path.exists() or not isinstance(error, datasets.exceptions.DatasetNotFoundError | FileNotFoundError):
            hint = ""
            file, cache = str(getattr(error, "filename", None)), str(datasets.config.HF_CACHE_HOME)
            if file.startswith(cache) or cache.startswith(file):
                hint = "; its cache cannot be written: set HF_HOME to a folder that can be"
            if isinstance(error, ValueError) and "config" in str(error).lower():
                hint = "; name one with subset"
            text = " ".join(str(error).partition("Example of usage")[0].split())
            raise SeekingError(f"data set {name} cannot be read: {type(error).__name__}: {text}{hint}") from error
        if "/" in name:
            raise SeekingError(f"data set {name}: neither a local folder nor found on the hub ({error})") from error
        raise unknown("data set", name, [*on_board, *on_hub]) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of ``datasets``, and no messages of the hub's client about errors, which are raised as well."""
    import datasets

    logger, bars = logging.getLogger("huggingface_hub"), datasets.are_progress_bars_disabled()
    level = logger.level
    datasets.disable_progress_bars()
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def _with_training(name: str, splits: Splits) -> Splits:
    if "train" not in splits:
        held = ", ".join(split.source for split in splits.values())
        raise SeekingError(f"data set {name}: no train split; it has {held or 'none'}")
    return splits


def _any_format(name: str, subset: str | None = None) -> Splits:
    import datasets

    return _standard(datasets.load_dataset(name, subset))


def _standard(held: Mapping[Any, Any]) -> Splits:
    splits: Splits = {}
    for split, rows in held.items():
        splits.setdefault(standard_split(split) or split, Split(split, [rows]))
    return splits


def _chosen(splits: Splits, name: str, chosen: Mapping[str, str]) -> Splits:
    """The same splits, those that the user has chosen under the names that they are chosen for."""
    named = {**splits, **{split.source: split for split in splits.values()}}
    for split, path in chosen.items():
        if path not in named:
            raise unknown(f"{split}_split of {name}", path, named)
    taken = {split: named[path] for split, path in chosen.items()}
    if len({id(rows) for rows in taken.values()}) < len(taken):
        raise SeekingError(
            f"data set {name}: train_split and test_split are both {chosen['train']}; name two splits, or hold images "
            "out of the training split with validation"
        )
    others = {split: rows for split, rows in splits.items() if not any(rows is other for other in taken.values())}
    return {**taken, **{f"{split}, not chosen" if split in taken else split: rows for split, rows in others.items()}}


def _local(path: Path, chosen: Mapping[str, str]) -> Splits:
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            table = "; for a table, give task tabular" if path.suffix.lower() in CSV else ""
            raise SeekingError(f"data set {path}: not a folder or a parquet file{table}")
        return _chosen(parquet_files(str(path.parent), [path.name])[0], str(path), chosen)
    root = str(path)
    if is_saved(path):
        return saved(path, chosen)
    tree = walk(root)
    held = files(tree)
    parquet = [file for file in held if file.lower().endswith(".parquet")]
    if parquet:
        splits, unused = parquet_files(root, parquet)
        splits = _chosen(splits, root, chosen)
        named = names_images(splits)
        unused += [file for file in held if not (file.lower().endswith(".parquet") or (named and is_image(file)))]
    elif any(map(is_image, held)):
        splits, unused = image_folder(root, tree, chosen)
    elif held:
        try:
            return _chosen(_any_format(root), root, chosen)
        except Exception as error:
            raise SeekingError(
                f"data set {root}: no parquet files and no images are in it, but {describe(held)}, which cannot be "
                f"read ({error.__cause__ or error}); unpack archives"
            ) from error
    else:
        raise SeekingError(f"data set {root}: the folder is empty")
    if unused:
        warnings.warn(f"data set {root}: not used are {describe(unused)}", RunWarning, stacklevel=2)
    return splits
