"""The pair beside its two models trained alone."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seeking.data import ImageData
from seeking.experiments.run import Role, RunConfig, trainer
from seeking.training import Result, RunFolder
from seeking.training.record import Listener

ARMS: tuple[Role, ...] = ("pair", "base", "motivated")

Results = dict[Role, list[Result]]


def compare(
    config: RunConfig,
    data: ImageData,
    seeds: Sequence[int],
    output: Path | None = None,
    resume: bool = False,
    listener: Callable[[str], Listener] | None = None,
) -> Results:
    """Train the pair and each model alone, with the same seeds, data order and fresh weights.

    (In the pair, the motivated model's shared part then takes the base's.)

    Args:
        config: of every run; its seed is replaced.
        data: of every run.
        seeds: one run of each arm a seed.
        output: each run's folder is made below it.
        resume: go on with the runs that are there.
        listener: from a run's title to a listener for it.

    Returns:
        For each arm its results in the order of the seeds.
    """
    results: Results = {arm: [] for arm in ARMS}
    runs = [(seed, arm) for seed in seeds for arm in ARMS]
    for number, (seed, arm) in enumerate(runs, start=1):
        title = f"{number}/{len(runs)} {arm if arm == 'pair' else arm + ' alone'}, seed {seed}"
        results[arm].append(
            trainer(
                dataclasses.replace(config, seed=seed),
                data,
                arm,
                output=RunFolder(output / f"{arm}-seed{seed}", resume=resume) if output else None,
                listeners=[listener(title)] if listener else [],
            ).fit()
        )
    return results


def summarise(results: Results) -> dict[str, Any]:
    """Mean and spread over the seeds of each model's final accuracy, together and alone, and what each arm cost."""
    models = {}
    for model in ("base", "motivated"):
        together = [result.metrics[model]["accuracy"] for result in results["pair"]]
        alone = [result.metrics[model]["accuracy"] for result in results[model]]
        gains = [a - b for a, b in zip(together, alone, strict=True)]
        models[model] = {"together": spread(together), "alone": spread(alone), "gain": spread(gains)}
    arms = {
        arm: {
            "flops": spread([result.cost.total for result in ones]),
            "seconds": spread([result.seconds["total"] for result in ones]),
        }
        for arm, ones in results.items()
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
    """Mean, standard deviation (None of a single value) and the values."""
    return {
        "mean": statistics.mean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }
