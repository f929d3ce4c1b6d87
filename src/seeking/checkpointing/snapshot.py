"""Checkpoints: everything that decides a run's future, written completely or not at all.

step-00000200/
    manifest.json          size and SHA-256 of the other two
    state.json             everything but the tensors
    tensors.safetensors    every tensor, once

A checkpoint is written to a temporary folder, flushed to the disk and renamed, so that a folder of that name is
complete. One that has been damaged since then does not match its manifest and is never loaded.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from seeking.errors import RunError, SeekingError
from seeking.files import flush, read_json, read_text

FORMAT = "seeking.checkpoint"
VERSION = 1
FILES = ("state.json", "tensors.safetensors")
MAX_STATE_BYTES = 1 << 26
"""Bytes of ``state.json`` that are read."""

_NAME = re.compile(r"step-(\d{8,15})")


def name(step: int) -> str:
    """The name of a step's checkpoint."""
    return f"step-{step:08d}"


def write(folder: Path, step: int, state: Any, tensors: Mapping[str, Tensor]) -> None:
    """Write the checkpoint of a step into a folder of checkpoints.

    Args:
        folder: of the run's checkpoints; made if missing.
        step: steps taken so far.
        state: JSON-serialisable.
        tensors: contiguous, on the CPU.

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
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name(step)}.writing"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        (temporary / "state.json").write_text(text, encoding="utf-8")
        save_file(dict(tensors), temporary / "tensors.safetensors")
        (temporary / "manifest.json").write_text(_manifest(step, temporary), encoding="utf-8")
        for file in ("manifest.json", *FILES):
            flush(temporary / file)
        flush(temporary)
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
        SeekingError: it is not as it was written.
    """
    check(path)
    try:
        state = read_json(path / "state.json", MAX_STATE_BYTES)
        # Loaded tensors are the file's own pages, and the file will be deleted.
        tensors = {name: tensor.clone() for name, tensor in load_file(path / "tensors.safetensors").items()}
    except OSError as error:
        raise SeekingError(f"{path}: cannot be read ({error.strerror})") from error
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SeekingError(f"{path}: not tensors ({error})") from error
    return state, tensors


def check(path: Path) -> None:
    """Make sure that a checkpoint is as it was written.

    Raises:
        SeekingError: it is not.
    """
    step = _step(path)
    for name in ("manifest.json", *FILES):
        if path.is_symlink() or (path / name).is_symlink() or not (path / name).is_file():
            raise SeekingError(f"{path / name}: missing, or not a file of its own")
    try:
        if read_text(path / "manifest.json", 4096) != _manifest(step, path):
            raise SeekingError(f"{path}: damaged; its files are not those that its manifest lists")
    except OSError as error:
        raise SeekingError(f"{path}: cannot be read ({error.strerror})") from error


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_step, reverse=True)


def prune(folder: Path, keep: int | None = None) -> None:
    """Delete what interrupted writing has left and, if ``keep`` is given, all checkpoints but the newest ones."""
    for path in folder.glob(".step-*.writing") if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)
    for path in list_checkpoints(folder)[keep:] if keep is not None else ():
        # Renamed first: half a checkpoint must not be taken for one.
        temporary = folder / f".{path.name}.writing"
        path.rename(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


def _manifest(step: int, folder: Path) -> str:
    files = {}
    for name in FILES:
        with (folder / name).open("rb") as file:
            files[name] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": file.tell()}
    return json.dumps({"format": FORMAT, "version": VERSION, "step": step, "files": files}, indent=2) + "\n"


def _step(path: Path) -> int:
    name = _NAME.fullmatch(path.name)
    if not name:
        raise SeekingError(f"{path}: not a checkpoint; these are called step-NUMBER")
    return int(name[1])
