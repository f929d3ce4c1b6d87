"""The runs in a folder, as a table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seeking.checkpointing import run_files
from seeking.checkpointing.manifest import kind_of
from seeking.checkpointing.metrics_log import read_rows
from seeking.choices import MODELS
from seeking.errors import SeekingError
from seeking.files import is_folder, read_json, reading, status
from seeking.report.folder import changed_options
from seeking.report.metric import shown
from seeking.report.tables import Rows

MAX_DEPTH = 6
"""Folders below the one that is listed, such as those of an experiment, its search, an arm, its models and a seed."""

LEFT_OUT = frozenset({*MODELS, "data", "output", "config", "resume", "overwrite"})
"""Options that are not listed, or not as others are."""


def find_runs(folder: Path) -> Iterator[Path]:
    """The run folders in a folder; those of a comparison after it. So are those of which this cannot be told, since
    they cannot be read.

    Raises:
        OSError: the folder cannot be read.
    """
    for path in sorted(folder.iterdir()):
        yield from _runs_at(path, MAX_DEPTH)


def _runs_at(path: Path, depth: int) -> Iterator[Path]:
    try:
        if not is_folder(path) or path.name in (run_files.CHECKPOINTS, run_files.TENSORBOARD):
            return
        is_run = run_files.is_run(path)
        inner = sorted(path.iterdir()) if depth > 1 else []
    except FileNotFoundError:  # It is gone by now.
        return
    except (OSError, SeekingError):
        yield path
        return
    if is_run:
        yield path
    for each in inner:
        yield from _runs_at(each, depth - 1)


def runs_table(folder: Path) -> tuple[str, Rows]:
    """What the runs in a folder have in common, and of each its progress, its results and what is its own.

    This is told of the models, the data and the options that were changed from the defaults. Nothing in the folder is
    executed or changed. A run that cannot be read has the reason in its row.

    Raises:
        SeekingError: the folder cannot be read, or there is no run in it.
    """
    with reading(folder):
        runs = {str(path.relative_to(folder)): _read(path) for path in find_runs(folder)}
    if not runs:
        raise SeekingError(f"{folder}: neither a run folder, which has a config.json, nor are there any in it")
    facts = [run.facts for run in runs.values() if not run.error]
    common = [fact for fact in facts[0] if all(fact in other for other in facts)] if facts else []
    rows = [
        (name, *run.results, run.error or ", ".join(fact for fact in run.facts if fact not in common))
        for name, run in runs.items()
    ]
    return ", ".join(common), (("run", "epochs", "base", "motivated", "differing options"), rows)


class _Run(NamedTuple):
    """A run of the list.

    Attributes:
        results: progress, and the metric of each model.
        facts: models, data and changed options; none if it cannot be read.
        error: why it cannot be read.
    """

    results: tuple[str, ...]
    facts: tuple[str, ...]
    error: str = ""


def _read(path: Path) -> _Run:
    try:
        options = run_files.read_options(path)
        metrics, finished = _progress(path)
        comparison = kind_of(path) == "comparison"
    except (OSError, SeekingError) as error:
        return _Run(("", "", ""), (), str(error))
    done = "comparison" if comparison else _done(metrics, options)
    done += "" if finished else ", unfinished"
    best = options.get("best")
    scores = (_score(metrics, model, best if isinstance(best, str) else None) for model in MODELS)
    models = " in ".join(str(options[model]) for model in MODELS if model in options)
    data = f"data={options['data']}" if "data" in options else ""
    changed = (f"{name}={value}" for name, value in changed_options(options).items() if name not in LEFT_OUT)
    return _Run((done, *scores), tuple(filter(None, (models, data, *changed))))


def _done(metrics: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """How far a run was at its latest evaluation: in epochs, or in steps if its length is in steps."""
    steps = options.get("max_steps")
    reached = metrics.get("epoch" if steps is None else "step", 0)
    text = f"{round(reached, 2)}" if isinstance(reached, int | float) else "?"
    return f"{text}/{options.get('epochs', '?')}" if steps is None else f"{text}/{steps} steps"


def _progress(path: Path) -> tuple[Mapping[str, Any], bool]:
    """The latest evaluation, and whether the run is over."""
    metrics: dict[str, Any] = {}
    if status(path / "metrics.jsonl"):
        for row in read_rows(path / "metrics.jsonl"):
            if row["kind"] == "eval":
                metrics = row
    finished = status(path / "summary.json") is not None
    if finished:
        recorded = read_json(path / "summary.json").get("metrics")
        metrics = {**metrics, **recorded} if isinstance(recorded, dict) else metrics
    return metrics, finished or status(path / "comparison.json") is not None


def _score(metrics: Mapping[str, Any], model: str, best: str | None) -> str:
    of_model = metrics.get(model)
    if not isinstance(of_model, dict):
        return ""
    numbers = {name: value for name, value in of_model.items() if isinstance(value, float)}
    metric = shown([numbers], best)
    return metric.text(numbers[metric.name]) if metric.name in numbers else ""
