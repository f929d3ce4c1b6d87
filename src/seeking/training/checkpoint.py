"""Checkpoints: everything that decides a run's future, whole or absent.

step-00000200/
    manifest.json          size and SHA-256 of the other two
    state.json             everything but the tensors
    tensors.safetensors    every tensor, once

A checkpoint is written beside its place, flushed to the disk and renamed, so that a folder of that name is whole. What
has been damaged since then does not match the manifest and is never loaded.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from seeking.errors import RunError, SeekingError
from seeking.files import flush, read_json, read_text

FORMAT = "seeking.checkpoint"
VERSION = 1
FILES = ("state.json", "tensors.safetensors")
MOST_STATE = 1 << 26
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
    if len(text) > MOST_STATE:
        raise RunError(
            f"without its tensors the state of the run is {len(text):,} characters, more than the {MOST_STATE:,} that "
            "are ever read; the condition, or an extra state of a model, remembers too much"
        )
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{name(step)}.writing"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        (beside / "state.json").write_text(text, encoding="utf-8")
        save_file(dict(tensors), beside / "tensors.safetensors")
        (beside / "manifest.json").write_text(_manifest(step, beside), encoding="utf-8")
        for file in ("manifest.json", *FILES):
            flush(beside / file)
        flush(beside)
        beside.rename(folder / name(step))
        flush(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint, if it is whole.

    Returns:
        What ``write`` was given.

    Raises:
        SeekingError: it is not as it was written.
    """
    check(path)
    try:
        state = read_json(path / "state.json", MOST_STATE)
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


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_step, reverse=True)


def tidy(folder: Path, keep: int | None = None) -> None:
    """Delete what unfinished writing has left and, if asked to, all checkpoints but the newest ``keep``."""
    for path in folder.glob(".step-*.writing") if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)
    for path in found(folder)[keep:] if keep is not None else ():
        # Renamed first: half a checkpoint must not be taken for one.
        beside = folder / f".{path.name}.writing"
        path.rename(beside)
        shutil.rmtree(beside, ignore_errors=True)


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


class Writer:
    """Copies tensors to memory of its own and writes them in the background, one job at a time."""

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether the last job is still being done."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the last job.

        Raises:
            OSError, SafetensorError: it failed.
        """
        if self._thread:
            self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error:
            self._copies = {}  # What could not be written may be tried again.
            raise error

    def copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Contiguous copies on the CPU, in memory that the next copies will use again; the last job must be done."""
        copies = {}
        for name, tensor in tensors.items():
            copy = self._copies.get(name)
            if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
                copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
            copies[name] = copy.copy_(tensor, non_blocking=True)
        if any(tensor.device.type != "cpu" for tensor in tensors.values()):
            torch.accelerator.synchronize()
        self._copies = copies
        return copies

    def start(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Do these jobs in turn, in the background."""

        def work() -> None:
            if sys.platform == "linux":  # There, threads have priorities of their own: training goes first.
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
            try:
                for job in jobs:
                    job()
            except BaseException as error:
                self._error = error

        # A daemon, so that a program that must leave at once can; what is half written is not a checkpoint.
        self._thread = threading.Thread(target=work, name="seeking-writer", daemon=True)
        self._thread.start()
