"""Which folders are runs of this program, and which files in them are its own: no others are ever deleted."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seeking.checkpointing import manifest, snapshot
from seeking.checkpointing.metrics_log import MAX_ROW_LENGTH
from seeking.errors import DamagedError, SeekingError
from seeking.files import MAX_OPTIONS_BYTES, is_file, is_folder, open_file, read_json, reading, remove_temporary

LOCK = ".lock"

CHECKPOINTS = "checkpoints"

OPTIONS = frozenset(
    {"epochs", "condition", "on", "norm", "optimizer", "optimizer_state", "lr", "momentum", "weight_decay"}
    | {"schedule", "warmup_epochs", "label_smoothing", "clip_grad", "accumulate", "device", "precision", "seed"}
    | {"channels_last", "fused", "compile", "eval_every", "save_every", "keep_checkpoints", "on_nonfinite", "verify"}
)
"""Options that every version of this program has recorded in ``config.json``."""

_WEIGHTS = r"(base|motivated)\.(last|best)\.safetensors"
_FILE = re.compile(
    rf"config\.json|map\.json|metrics\.jsonl|manifest\.json|summary\.json|curves\.png|trackers\.json|comparison\.(json|md|png)"
    rf"|{_WEIGHTS}|damaged-{_WEIGHTS}"
)
GROWING = ("metrics.jsonl", "summary.json")
"""Files that are listed in the manifest when the run is over."""

TENSORBOARD = "tensorboard"
_EVENTS = re.compile(r"events\.out\.tfevents\.[\w.-]+|hparams\.yml")
_TEMPORARY = re.compile(rf"\.({_FILE.pattern})\.writing")
_RUN_OF_COMPARISON = re.compile(r"(pair|base|motivated)-seed\d+")


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run or a comparison of this program: by its manifest or, for those of older versions,
    by the options in ``config.json`` together with the form of the metrics and checkpoints.

    Raises:
        OSError, SeekingError: this cannot be told, since a file cannot be read.
    """
    return bool(manifest.kind_of(folder)) or (read_options(folder).keys() >= OPTIONS and _has_record(folder))


def check_of_no_run(path: Path) -> None:
    """Make sure that a file which is written by name is not one of a run, which would then be damaged.

    Raises:
        SeekingError: the manifest of its folder, of a run or a checkpoint, lists it; or it cannot be read.
    """
    with reading(path):
        listing = manifest.of_run(path.parent)
        if (listing and path.name in (manifest.NAME, *listing.files)) or snapshot.is_part(path):
            what = "run" if listing else "checkpoint"
            raise SeekingError(f"{path} is a file of the {what} in {path.parent}; name another file")


def read_options(folder: Path) -> dict[str, Any]:
    """The recorded options of a run; if ``config.json`` is lost or damaged, those of its newest intact checkpoint, or
    of the first run of a comparison. Empty if there are none.

    Raises:
        OSError, SeekingError: a file cannot be read.
    """
    path = folder / "config.json"
    try:
        manifest.check_file(path)
        intact = is_file(path)
    except DamagedError:
        intact = False
    if intact:
        with open_file(path) as file:
            text = file.read(MAX_OPTIONS_BYTES + 1)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict) and len(text) <= MAX_OPTIONS_BYTES:
            return content
    options = _newest_state(folder).get("options")
    if options is None and (is_file(path) or is_file(folder / manifest.NAME)):  # Else, of whatever lies beside runs.
        runs = sorted(runs_of_comparison(folder), key=lambda run: int(run.name.partition("seed")[2]))
        options = read_options(runs[0]) if runs else {}
    return options if isinstance(options, dict) else {}


def writes_manifests(folder: Path) -> bool:
    """Whether the newest intact checkpoint is of a version that writes manifests.

    Raises:
        OSError, SeekingError: a file cannot be read.
    """
    return "data" in _newest_state(folder)


def _newest_state(folder: Path) -> dict[str, Any]:
    for checkpoint in snapshot.list_checkpoints(folder / CHECKPOINTS):
        try:
            snapshot.check(checkpoint)
        except DamagedError:
            continue
        return read_json(checkpoint / "state.json", snapshot.MAX_STATE_BYTES)
    return {}


def _has_record(folder: Path) -> bool:
    if any(snapshot.has_manifest(path) for path in snapshot.list_checkpoints(folder / CHECKPOINTS)):
        return True
    metrics = folder / "metrics.jsonl"
    if is_file(metrics):
        with open_file(metrics) as file:
            line = file.readline(MAX_ROW_LENGTH)
        try:
            row = json.loads(line)
            epochs, length, steps = row["epochs"], row["epoch_length"], row.get("steps")
            counts = [count for count in (epochs, length) if count is not None] or [steps]
            return bool(row["kind"] == "start" and all(type(count) is int for count in counts))
        except (ValueError, LookupError, TypeError, RecursionError):
            return False
    names = {path.name for path in folder.iterdir() if not is_leftover(path)}
    # It may have been killed before there was a record.
    return any(runs_of_comparison(folder)) or names <= {LOCK, "config.json", "map.json"}


def runs_of_comparison(folder: Path) -> Iterator[Path]:
    """The folders of the runs of a comparison.

    Raises:
        OSError, SeekingError: something cannot be read.
    """
    return (path for path in sorted(folder.iterdir()) if _RUN_OF_COMPARISON.fullmatch(path.name) and is_run(path))


def unlisted(folder: Path, known: manifest.Manifest | None) -> list[str]:
    """The program's own finished files in a folder that its manifest does not list, but for those that grow.

    Raises:
        OSError: the folder cannot be read.
    """
    listed = {manifest.NAME, *GROWING, *(known.files if known else ())}
    paths = [path for path in sorted(folder.iterdir()) if _FILE.fullmatch(path.name) and path.name not in listed]
    return [path.name for path in paths if is_file(path) and not path.name.startswith("damaged-")]


def strange(known: manifest.Manifest) -> list[str]:
    """The names in a manifest that no file of this program has, since it is damaged."""
    return [name for name in known.files if not _FILE.fullmatch(name)]


def is_leftover(path: Path) -> bool:
    """Whether this is what an interrupted write of a run's file has left, by its name."""
    return bool(_TEMPORARY.fullmatch(path.name))


def _is_event_file(path: Path) -> bool:
    """Whether TensorBoard's writer has made this file, by its name."""
    return is_file(path) and bool(_EVENTS.fullmatch(path.name))


def sort(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and folders in a run folder that are the program's own, and the first few of all others.

    Raises:
        OSError: something cannot be read.
    """
    own: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name == CHECKPOINTS and is_folder(path):
            foreign = [each for each in path.iterdir() if not snapshot.is_own(each)]
        elif path.name == TENSORBOARD and is_folder(path):
            foreign = [each for each in path.rglob("*") if not (is_folder(each) or _is_event_file(each))]
        elif _RUN_OF_COMPARISON.fullmatch(path.name) and is_folder(path) and is_run(path):
            foreign = sort(path)[1]
        else:
            ours = is_leftover(path) or (is_file(path) and (path.name == LOCK or _FILE.fullmatch(path.name)))
            foreign = [] if ours else [path]
        if foreign:
            others += foreign
        else:
            own.append(path)
    return own, others


def delete(paths: list[Path]) -> None:
    """Delete files and folders that ``sort`` has found to be the program's own.

    Raises:
        OSError: one of them cannot be deleted.
    """
    for path in paths:
        if is_leftover(path):
            remove_temporary(path)
        elif is_folder(path):
            shutil.rmtree(path)
        else:
            path.unlink()


def links(folder: Path) -> list[Path]:
    """The links in a run folder, which no run has put there.

    Raises:
        OSError: the folder cannot be read.
    """
    below = [folder, folder / CHECKPOINTS]
    below += [path for path in snapshot.list_checkpoints(folder / CHECKPOINTS) if is_folder(path)]
    return [path for each in below if is_folder(each) for path in each.iterdir() if path.is_symlink()]


def is_taken(folder: Path) -> bool:
    """Whether a folder holds anything but what a program leaves that is killed before it has written a file.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        return any(path.name != LOCK and not is_leftover(path) for path in folder.iterdir())
    except FileNotFoundError:
        return False
