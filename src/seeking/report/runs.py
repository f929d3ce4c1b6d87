"""The runs in a folder, as a table."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seeking.checkpointing import run_files
from seeking.checkpointing.metrics_log import read_rows
from seeking.errors import SeekingError
from seeking.files import MAX_OPTIONS_BYTES, is_folder, read_json, reason, status
from seeking.report.folder import changed_options
from seeking.report.metric import shown
from seeking.report.tables import Rows

MAX_DEPTH = 4
"""Folders below the one that is listed, such as of an experiment, an arm and a seed."""

SHOWN = ("base", "motivated", "data")
"""Options with columns of their own."""

LEFT_OUT = frozenset({*SHOWN, "output", "config", "resume", "overwrite"})


def find_runs(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """The run folders in a folder; those of a comparison after it.

    Raises:
        OSError: something cannot be read.
    """
    for path in sorted(folder.iterdir()):
        if not is_folder(path):
            continue
        if run_files.is_run(path):
            yield path
        if depth > 1 and path.name not in (run_files.CHECKPOINTS, run_files.TENSORBOARD):
            yield from find_runs(path, depth - 1)


def runs_table(folder: Path) -> Rows:
    """The runs in a folder: models, data, progress, results and what was changed from the defaults.

    Nothing in the folder is executed or changed. A run that cannot be read has the reason in its row.

    Raises:
        SeekingError: the folder cannot be read, or there is no run in it.
    """
    try:
        rows: list[Sequence[str]] = [_row(path, str(path.relative_to(folder))) for path in find_runs(folder)]
    except OSError as error:
        raise SeekingError(f"{folder}: cannot be read ({reason(error)})") from error
    if not rows:
        raise SeekingError(f"{folder}: neither a run folder, which has a config.json, nor are there any in it")
    return ("run", "models", "data", "epochs", "base", "motivated", "changed options"), rows


def _row(path: Path, name: str) -> tuple[str, ...]:
    try:
        options = run_files.read_options(path)
        metrics, epoch, finished = _progress(path)
    except (OSError, SeekingError) as error:
        return name, "", "", "", "", "", str(error)
    changed = {key: value for key, value in changed_options(options).items() if key not in LEFT_OUT}
    models = " in ".join(str(options[key]) for key in SHOWN[:2] if key in options)
    epochs = f"{epoch}/{options.get('epochs', '?')}{'' if finished else ', unfinished'}"
    texts = ", ".join(f"{key}={value}" for key, value in changed.items())
    return name, models, str(options.get("data", "")), epochs, *(_score(metrics, model) for model in SHOWN[:2]), texts


def _progress(path: Path) -> tuple[Mapping[str, Any], int, bool]:
    """The latest metrics of each model, the epochs so far, and whether the run is over."""
    metrics: dict[str, Any] = {}
    epoch = 0
    if status(path / "metrics.jsonl"):
        for row in read_rows(path / "metrics.jsonl"):
            if row["kind"] == "eval" and isinstance(row.get("epoch"), int):
                metrics, epoch = row, row["epoch"]
    finished = status(path / "summary.json") is not None
    if finished:
        recorded = read_json(path / "summary.json", MAX_OPTIONS_BYTES).get("metrics")
        metrics = recorded if isinstance(recorded, dict) else metrics
    return metrics, epoch, finished or status(path / "comparison.json") is not None


def _score(metrics: Mapping[str, Any], model: str) -> str:
    of_model = metrics.get(model)
    if not isinstance(of_model, dict):
        return ""
    numbers = {name: value for name, value in of_model.items() if isinstance(value, float)}
    metric = shown([numbers])
    return metric.text(numbers[metric.name]) if metric.name in numbers else ""
