"""Compare the pair with each of its models trained alone."""

import contextlib
import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seeking.checkpointing import run_files
from seeking.choices import MODELS, Role
from seeking.errors import SeekingError
from seeking.experiments.config import RunConfig
from seeking.experiments.run import trainer
from seeking.experiments.tasks import TaskData
from seeking.report.metric import Metric
from seeking.training import Result, RunFolder
from seeking.training.record import Listener

ARMS: tuple[Role, ...] = ("pair", "base", "motivated")

Results = dict[Role, list[Result]]


def compare(
    config: RunConfig,
    data: TaskData,
    seeds: Sequence[int],
    output: Path | None = None,
    resume: bool = False,
    show: Callable[[str], contextlib.AbstractContextManager[Listener]] | None = None,
) -> Results:
    """Train the pair and each model alone, with the same seeds, data order and initial weights.

    In the pair, the shared part of the motivated model then starts from the base's weights.

    Args:
        config: options of every run; the seed is replaced.
        data: data of every run.
        seeds: seeds of the runs of each arm.
        output: folder for the run folders.
        resume: resume the runs in ``output``.
        show: shows the run of a title: gives its listener while it trains.

    Returns:
        The results of each arm, in the order of the seeds.
    """
    results: Results = {arm: [] for arm in ARMS}
    runs = [(seed, arm) for seed in seeds for arm in ARMS]
    for number, (seed, arm) in enumerate(runs, start=1):
        title = f"{number}/{len(runs)} {arm if arm == 'pair' else arm + ' alone'}, seed {seed}"
        folder = RunFolder(run_of(output, arm, seed), resume=resume) if output else None
        of_seed = dataclasses.replace(config, seed=seed)
        with show(title) if show else contextlib.nullcontext() as listener:
            listeners = [listener] if listener else []
            results[arm].append(trainer(of_seed, data, arm, folder, listeners).fit())
    return results


def check(config: RunConfig, data: TaskData, seeds: Sequence[int], output: Path | None = None) -> None:
    """Make sure that the runs of the first seed can be begun or, if they have been, resumed; nothing is written.

    Args:
        config: as for ``compare``.
        data: as for ``compare``.
        seeds: as for ``compare``.
        output: folder with runs that are resumed.

    Raises:
        SeekingError: a run is refused, or the folder has runs of other seeds, which the results would leave out.
    """
    if output:
        compared = {run_of(output, arm, seed) for arm in ARMS for seed in seeds}
        left_out = [run for run in run_files.runs_of_comparison(output) if run not in compared]
        if left_out:
            raise SeekingError(
                f"seeds {seeds[0]} to {seeds[-1]} are compared, and {left_out[0]} is of another one; give --seed and "
                "--seeds such that all are, or another output folder"
            )
    for arm in ARMS:
        path = run_of(output, arm, config.seed) if output else None
        if path and path.exists():
            trainer(config, data, arm, RunFolder(path, resume=True))
        else:
            trainer(dataclasses.replace(config, on_nonfinite="stop"), data, arm)  # Rollback needs a folder.


def run_of(output: Path, arm: Role, seed: int) -> Path:
    """The folder of one run of a comparison."""
    return output / f"{arm}-seed{seed}"


def summarize(results: Results, metric: Metric) -> dict[str, Any]:
    """Mean and spread over the seeds: the final metric of each model, together and alone, and the cost of each arm."""
    models = {}
    for model in MODELS:
        together = [result.metrics[model][metric.name] for result in results["pair"]]
        alone = [result.metrics[model][metric.name] for result in results[model]]
        gains = [a - b for a, b in zip(together, alone, strict=True)]
        models[model] = {"together": spread(together), "alone": spread(alone), "gain": spread(gains)}
    arms = {
        arm: {
            "flops": spread([result.cost.total for result in arm_results]),
            "seconds": spread([result.seconds["total"] for result in arm_results]),
        }
        for arm, arm_results in results.items()
    }
    pair = [result.cost.report() for result in results["pair"]]
    names = ("motivated_share", "of_motivated_alone", "of_both_alone")
    return {
        "seeds": len(results["pair"]),
        "models": models,
        "arms": arms,
        "pair": {name: statistics.mean(report[name] for report in pair) for name in names},
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (None for a single value) and the values."""
    return {
        "mean": statistics.mean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }
