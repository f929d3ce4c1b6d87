"""The splits of a data set, from the Hugging Face hub or a folder."""

import difflib
import logging
import warnings
from pathlib import Path

from seeking.data.folders import Split, Splits, describe, files, image_folder, is_image, standard_split, walk
from seeking.data.parquet import parquet_files
from seeking.errors import RunWarning, SeekingError, unknown


def read(name: str) -> Splits:
    """Read all splits of a data set.

    A folder is one of parquet files if it holds any, and else one of images; other formats are left to ``datasets``.
    Files that are not used are told of in a warning.

    Args:
        name: of a data set on the Hugging Face hub, a folder, or a parquet file.

    Raises:
        SeekingError: the data set does not exist, cannot be read, or has no training split.
    """
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # Errors are reported below.
    path = Path(name).expanduser()
    if not path.exists() and name.startswith((".", "/", "~")):
        raise SeekingError(f"data set {name}: no such folder")
    try:
        splits = _local(path.absolute()) if path.exists() else _any_format(name)
    except SeekingError:
        raise
    except Exception as error:
        if isinstance(error, ConnectionError) and not path.exists():
            if difflib.get_close_matches(name, ["digits"]):
                raise unknown("data set", name, ["digits"]) from error
            raise SeekingError(
                f"data set {name}: no such folder, and the hub cannot be reached ({error}); check the network and "
                "HF_HUB_OFFLINE, or give a folder"
            ) from error
        if path.exists() or not isinstance(error, datasets.exceptions.DatasetNotFoundError | FileNotFoundError):
            hint = ""
            file, cache = str(getattr(error, "filename", None)), str(datasets.config.HF_CACHE_HOME)
            if file.startswith(cache) or cache.startswith(file):
                hint = "; its cache cannot be written: set HF_HOME to a folder that can be"
            raise SeekingError(f"data set {name} cannot be read: {type(error).__name__}: {error}{hint}") from error
        if "/" in name:
            raise SeekingError(f"data set {name}: neither a local folder nor found on the hub ({error})") from error
        raise unknown("data set", name, ["digits", "cifar10", "cifar100", "mnist", "fashion_mnist"]) from error
    if "train" not in splits:
        held = ", ".join(split.source for split in splits.values())
        raise SeekingError(f"data set {name}: no train split; it has {held or 'none'}")
    return splits


def _any_format(name: str) -> Splits:
    import datasets

    splits: Splits = {}
    for split, rows in datasets.load_dataset(name).items():
        splits.setdefault(standard_split(split) or split, Split(split, [rows]))
    return splits


def _local(path: Path) -> Splits:
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise SeekingError(f"data set {path}: not a folder or a parquet file")
        return parquet_files(str(path.parent), [path.name])[0]
    root = str(path)
    tree = walk(root)
    held = files(tree)
    parquet = [file for file in held if file.lower().endswith(".parquet")]
    if parquet:
        splits, unused = parquet_files(root, parquet)
        unused += [file for file in held if not file.lower().endswith(".parquet")]
    elif any(map(is_image, held)):
        splits, unused = image_folder(root, tree)
    elif held:
        try:
            return _any_format(root)
        except Exception as error:
            raise SeekingError(
                f"data set {root}: no parquet files and no images are in it, but {describe(held)}, which cannot be "
                f"read ({error})"
            ) from error
    else:
        raise SeekingError(f"data set {root}: the folder is empty")
    if unused:
        warnings.warn(f"data set {root}: not used are {describe(unused)}", RunWarning, stacklevel=2)
    return splits
