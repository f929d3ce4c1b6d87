"""Checkpoints: everything that decides a run's future, written completely or not at all.

step-00000200/
    manifest.json          size and SHA-256 of the other two
    state.json             everything but the tensors
    tensors.safetensors    every tensor, once

A checkpoint is written to a temporary folder, flushed to the disk and renamed, so that a folder of that name is
complete. One that has been damaged since then does not match its manifest and is never loaded.
"""

import json
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from seeking.checkpointing.manifest import digest
from seeking.errors import DamagedError, RunError, SeekingError
from seeking.files import (
    flush,
    is_file,
    is_folder,
    open_file,
    read_json,
    reading,
    remove_temporary,
    status,
    temporary_name,
)

FORMAT = "seeking.checkpoint"
VERSION = 1
FILES = ("state.json", "tensors.safetensors")
MAX_STATE_BYTES = 1 << 26
"""Bytes of ``state.json`` that are read."""

_NAME = re.compile(r"step-(\d{8,15})")
_DAMAGED = re.compile(r"damaged-step-\d{8,15}(\.\d+)?")
_TEMPORARY = re.compile(r"\.step-\d{8,15}\.writing")


def name(step: int) -> str:
    """The name of a step's checkpoint."""
    return f"step-{step:08d}"


def write(
    folder: Path,
    step: int,
    state: Any,
    tensors: Mapping[str, Tensor],
    ready: Callable[[], object] | None = None,
) -> None:
    """Write the checkpoint of a step into a folder of checkpoints.

    Args:
        folder: of the run's checkpoints.
        step: steps taken so far.
        state: JSON-serializable.
        tensors: contiguous, on the CPU.
        ready: called when all is written, before it gets its name.

    Raises:
        OSError, SafetensorError: the disk is full, or the like; nothing is left of this checkpoint.
        RunError: the state is larger than what is ever read.
    """
    text = json.dumps(state)
    if len(text) > MAX_STATE_BYTES:
        raise RunError(
            f"without its tensors the state of the run is {len(text):,} characters, more than the {MAX_STATE_BYTES:,} "
            "that are ever read; the condition, or an extra state of a model, remembers too much"
        )
    temporary = folder / temporary_name(name(step))
    remove_temporary(temporary)
    try:
        temporary.mkdir()
        (temporary / "state.json").write_text(text, encoding="utf-8")
        save_file(dict(tensors), temporary / "tensors.safetensors")
        (temporary / "tensors.safetensors").chmod(stat.S_IMODE((temporary / "state.json").stat().st_mode))
        (temporary / "manifest.json").write_text(manifest_text(step, temporary), encoding="utf-8")
        for file in ("manifest.json", *FILES):
            flush(temporary / file)
        flush(temporary)
        if ready:
            ready()
        temporary.rename(folder / name(step))
        flush(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint, if it is intact.

    Returns:
        What ``write`` was given.

    Raises:
        DamagedError: it is not as it was written.
        SeekingError: it cannot be read, or somebody else has written it.
    """
    check(path)
    state = read_json(path / "state.json", MAX_STATE_BYTES)
    try:
        with reading(path):  # Loaded tensors are the file's own pages, and the file will be deleted.
            tensors = {name: tensor.clone() for name, tensor in load_file(path / "tensors.safetensors").items()}
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SeekingError(f"{path}: not tensors ({error})") from error
    return state, tensors


def check(path: Path) -> None:
    """Make sure that a checkpoint is as it was written.

    Raises:
        DamagedError: it is not.
        SeekingError: it cannot be read, which may pass.
    """
    step = _step(path)
    with reading(path):
        if not is_folder(path):
            raise DamagedError(f"{path}: missing, or not a folder of its own")
        for name in ("manifest.json", *FILES):
            if not is_file(path / name):
                raise DamagedError(f"{path / name}: missing, or not a file of its own")
        with open_file(path / "manifest.json") as file:
            if file.read(4096) != manifest_text(step, path).encode():
                raise DamagedError(f"{path}: damaged; its files are not those that its manifest lists")


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted((path for path in _contents(folder) if _NAME.fullmatch(path.name)), key=_step, reverse=True)


def list_damaged(folder: Path) -> list[Path]:
    """The checkpoints in a folder that have been set aside.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(path for path in _contents(folder) if _DAMAGED.fullmatch(path.name))


def set_aside(path: Path) -> None:
    """Give a damaged checkpoint a name that is not that of a checkpoint.

    Raises:
        OSError: it cannot be renamed.
    """
    name, number = f"damaged-{path.name}", 0
    while status(path.with_name(name)):
        number += 1
        name = f"damaged-{path.name}.{number}"
    path.rename(path.with_name(name))


def prune(folder: Path, keep: int | None = None) -> None:
    """Delete what interrupted writing has left and, if ``keep`` is given, all checkpoints but the newest ones.

    Checkpoints that hold other files, too, are left alone.

    Raises:
        OSError: the folder cannot be read or written.
    """
    for path in _contents(folder):
        if _TEMPORARY.fullmatch(path.name):
            remove_temporary(path)
    for path in list_checkpoints(folder)[keep:] if keep is not None else ():
        if not is_own(path):  # Somebody has put a file there.
            continue
        # Renamed first: half a checkpoint must not be taken for one.
        temporary = folder / temporary_name(path.name)
        path.rename(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


def is_own(path: Path) -> bool:
    """Whether this is a checkpoint, one that was set aside, or what interrupted writing has left, and nothing else.

    Raises:
        OSError: it cannot be read.
    """
    if not is_folder(path):
        return False
    if _TEMPORARY.fullmatch(path.name):
        return True
    named = _NAME.fullmatch(path.name) or _DAMAGED.fullmatch(path.name)
    return bool(named) and all(file.name in ("manifest.json", *FILES) and is_file(file) for file in path.iterdir())


def has_manifest(path: Path) -> bool:
    """Whether the manifest of a checkpoint is one that ``write`` has written, whatever has become of the files.

    Raises:
        OSError: it cannot be read.
    """
    content = _manifest(path)
    return content.get("format") == FORMAT and content.get("step") == _step(path)


def is_part(path: Path) -> bool:
    """Whether a file is one of a checkpoint, by the manifest beside it.

    Raises:
        OSError: this cannot be told.
    """
    return path.name in ("manifest.json", *FILES) and _manifest(path.parent).get("format") == FORMAT


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "manifest.json", 4096) if is_file(folder / "manifest.json") else {}
    except SeekingError:
        return {}


def _contents(folder: Path) -> list[Path]:
    try:
        return [*folder.iterdir()]
    except FileNotFoundError:
        return []


def manifest_text(step: int, folder: Path) -> str:
    """The manifest of a step's checkpoint whose other files are in this folder.

    Raises:
        OSError: one cannot be read.
    """
    files = {name: digest(folder / name) for name in FILES}
    return json.dumps({"format": FORMAT, "version": VERSION, "step": step, "files": files}, indent=2) + "\n"


def _step(path: Path) -> int:
    name = _NAME.fullmatch(path.name)
    if not name:
        raise SeekingError(f"{path}: not a checkpoint; these are called step-NUMBER")
    return int(name[1])
