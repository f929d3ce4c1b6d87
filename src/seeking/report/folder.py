"""Describe a run folder as text."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seeking.checkpointing import run_files, snapshot
from seeking.checkpointing.manifest import NAME, Manifest, check_file
from seeking.checkpointing.metrics_log import read_rows
from seeking.choices import MODELS
from seeking.commands import Train
from seeking.errors import DamagedError, SeekingError
from seeking.files import is_file, read_json, reading, status

MAX_METRICS = 20
"""Metrics of a model that are shown."""


def is_run_folder(path: Path) -> bool:
    """Whether a folder is to be described as a run, damaged or not.

    Raises:
        SeekingError: this cannot be told.
    """
    with reading(path):
        return any(status(path / name) is not None for name in (NAME, "config.json", run_files.CHECKPOINTS))


def describe(path: Path) -> tuple[str, bool]:
    """The options of a run that were changed, its progress, its results, and whether its files are intact.

    Nothing in the folder is executed or changed.

    Returns:
        The text, and whether all files that can be checked are as they were written.

    Raises:
        SeekingError: this is not a run folder, or a file cannot be read.
    """
    with reading(path):
        return _describe(path)


def _describe(path: Path) -> tuple[str, bool]:
    damaged: list[str] = []  # Names of what is not intact; the functions below add to it.
    known, files = _files(path, damaged)
    options = run_files.read_options(path) if known else read_json(path / "config.json")
    if not (known or damaged or options.keys() & run_files.OPTIONS):
        raise SeekingError(f"{path}: not a run folder, its config.json has no options of a run")
    changed = changed_options(options)
    lines = [str(path), "options that were changed from their defaults:"]
    lines += [f"  {name!r}: {value!r}" for name, value in changed.items()] or ["  none"]
    lines += _record(path, is_run=not (known and known.kind == "comparison"), damaged=damaged)
    lines += ["files:", *files]
    for run in run_files.runs_of_comparison(path):
        if describe(run)[1]:
            lines.append(f"  {run.name}: intact")
        else:
            damaged.append(run.name)
            lines.append(f"  {run.name}: NOT intact; seeking show {run} tells of its files")
    lines.append("checkpoints:")
    for checkpoint in snapshot.list_checkpoints(path / run_files.CHECKPOINTS):
        lines.append(_checked(path, f"{run_files.CHECKPOINTS}/{checkpoint.name}", snapshot.check, damaged))
    lines += [f"  {checkpoint.name}: set aside" for checkpoint in snapshot.list_damaged(path / run_files.CHECKPOINTS)]
    return "\n".join(lines), not damaged


def _checked(path: Path, name: str, check: Callable[[Path], object], damaged: list[str]) -> str:
    """A line on a file or checkpoint of a run folder."""
    try:
        check(path / name)
    except SeekingError as error:
        if check is snapshot.check and status(path / name) is None:
            return f"  {name}: deleted meanwhile by the run, which goes on"
        if not isinstance(error, DamagedError):
            raise
        damaged.append(name)
        return f"  {name}: NOT intact ({error})"
    return f"  {name}: intact"


def _files(path: Path, damaged: list[str]) -> tuple[Manifest | None, list[str]]:
    """The manifest, if it is there and intact, and a line on each file."""
    manifest: list[Manifest | None] = []
    marked = _checked(path, NAME, lambda file: manifest.append(Manifest.read(file.parent)), damaged)
    known = manifest[0] if manifest else None
    if not known and not is_file(path / "config.json"):
        raise SeekingError(f"{path}: not a run folder, it has no config.json")
    files = [marked, *(_checked(path, name, check_file, damaged) for name in sorted(known.files if known else ()))]
    if manifest == [None] and run_files.writes_manifests(path):
        damaged.append(NAME)
        files = [f"  {NAME}: NOT intact (missing)"]
    elif manifest == [None]:
        files = ["  (there is no manifest.json: only checkpoints can be checked)"]
    if known or damaged:
        why = f"not checked, since {NAME} does not list it"
        files += [f"  {name}: {why}; resuming the run lists it" for name in run_files.unlisted(path, known)]
        growing = [name for name in run_files.GROWING if is_file(path / name) and not (known and name in known.files)]
        files += [f"  {name}: {why} before the run is over" for name in growing]
    return known, files


def _record(path: Path, is_run: bool, damaged: list[str]) -> list[str]:
    """A line on the steps of a run, and one on each evaluation."""
    steps = motivated = 0
    lines = []
    try:
        for row in read_rows(path / "metrics.jsonl") if status(path / "metrics.jsonl") else ():
            if row["kind"] == "step":
                steps += 1
                motivated += "motivated_loss" in row
            elif row["kind"] == "eval":
                scores = [
                    f"{model} {name} {row[model][name]:.4f}" for model in MODELS for name in _names(row.get(model))
                ]
                lines.append(f"  epoch {row.get('epoch')!r}: {', '.join(scores) or 'no metrics'}")
    except DamagedError as error:
        damaged.append("metrics.jsonl")
        lines.append(f"  metrics.jsonl: NOT intact ({error})")
    return [f"{steps} step{'s' * (steps != 1)}, {motivated} of them motivated", *lines] if is_run else lines


def changed_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded options that are not as they are by default."""
    defaults = json.loads(json.dumps(dataclasses.asdict(Train()), default=str))
    return {name: value for name, value in options.items() if name not in defaults or value != defaults[name]}


def _names(metrics: Any) -> list[str]:
    """Names of metrics in a row, the usual ones first; what is odd in a row that is not the program's is left out."""
    if not isinstance(metrics, dict):
        return []
    names = [name for name, value in metrics.items() if isinstance(value, float) and name.isidentifier()]
    return sorted(names[:MAX_METRICS], key=lambda name: (name != "accuracy", name != "loss"))
