"""Results of a recipe: quality, cost, and the condition against chance."""

import contextlib
import itertools
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seeking.checkpointing.metrics_log import read_rows
from seeking.choices import MODELS
from seeking.conditions import parse
from seeking.errors import SeekingError
from seeking.experiments.compare import spread
from seeking.experiments.recipe import PRETRAINING, Recipe, Trial
from seeking.experiments.tasks import task
from seeking.files import read_json
from seeking.report.metric import Metric

SHUFFLES = 50
"""Number of random orders of a run's losses that its condition is compared with."""

STAGES = ("early", "midway", "late")


def metric_of(recipe: Recipe) -> Metric:
    """The metric that a recipe's arms are compared by."""
    config = recipe.config(recipe.pairs[0])
    return task(config.task).metric(config.loss)


def gather(trial: Trial, root: Path, metric: Metric) -> dict[str, Any]:
    """The record of a finished trial: quality, FLOPs, seconds, curves and the evidence on its condition."""
    # Pretraining is common to all arms, so it is not part of their cost.
    own = [run for run in trial.runs if not run.folder.startswith(PRETRAINING)]
    summaries = {run.folder: read_json(root / run.folder / "summary.json") for run in own}
    instead = "remove the folder of this run to train it again"
    rows = {run.folder: [*read_rows(root / run.folder / "metrics.jsonl", instead)] for run in own}
    epochs = {run.folder: run.config.epochs for run in own}
    record: dict[str, Any] = {
        "arm": trial.arm,
        "pair": list(trial.pair),
        "budget": trial.budget,
        "seed": trial.seed,
        "runs": [run.folder for run in trial.runs],
        "flops": sum(summary["cost"]["total"] for summary in summaries.values()),
        "seconds": sum(summary["seconds"]["total"] for summary in summaries.values()),
    }
    for model, (run, name) in trial.models.items():
        record[model] = summaries[run.folder]["metrics"][name][metric.name]
        offset = {"epochs": 0.0, "flops": 0.0}
        if run.after in summaries:  # Include the cost of the run that this one starts from.
            offset = {"epochs": epochs[run.after], "flops": summaries[run.after]["cost"]["total"]}
        record[f"{model}_curve"] = curve(rows[run.folder], name, offset, metric)
    for run in own:
        if run.stage.conditional:
            cost = summaries[run.folder]["cost"]
            record |= {name: cost[name] for name in ("motivated_share", "of_motivated_alone")}
            record["evidence"] = evidence(rows[run.folder], run.config.condition, run.config.seed)
    return record


def curve(
    rows: Sequence[Mapping[str, Any]], model: str, offset: Mapping[str, float], metric: Metric
) -> list[list[float]]:
    """Epochs, training FLOPs so far and metric at each evaluation; ``offset`` is what was spent before this run."""
    return [
        [row["epoch"] + offset["epochs"], row["flops"] + offset["flops"], row[model][metric.name]]
        for row in rows
        if row["kind"] == "eval" and model in row
    ]


def evidence(rows: Sequence[Mapping[str, Any]], condition: str, seed: int) -> dict[str, dict[str, float | None]]:
    """The condition against chance, in each third of a run.

    Returns:
        For each third: ``rate``, the share of motivated batches; ``shuffled``, the mean rate of the condition on the
        losses of that third in random order, which has no trend, or None if it needs what is not recorded;
        ``deviation``, the standard deviation of that rate between the orders; ``loss``, the mean loss of the base on
        motivated batches over its mean loss.
    """
    steps = [row for row in rows if row["kind"] == "step" and "loss" in row]
    length = next((row["epoch_length"] for row in rows if row["kind"] == "start"), len(steps))
    generator = random.Random(seed)
    by_stage: dict[str, dict[str, float | None]] = {}
    for number, stage in enumerate(STAGES):
        part = steps[number * len(steps) // 3 : (number + 1) * len(steps) // 3]
        if not part:
            continue
        losses = [row["loss"] for row in part]
        motivated_losses = [row["loss"] for row in part if "motivated_loss" in row]
        rates = []
        with contextlib.suppress(SeekingError):  # The condition needs what a shuffled run does not have.
            for order in range(SHUFFLES):
                # The first shuffle only warms the condition up: it does not hold before it has seen some losses.
                warmup, shuffled = (generator.sample(part, len(part)) for _ in range(2))
                decisions = _decisions([*warmup, *shuffled], condition, seed + order, length)
                rates.append(statistics.mean(decisions[len(warmup) :]))
        by_stage[stage] = {
            "rate": len(motivated_losses) / len(part),
            "shuffled": statistics.mean(rates) if rates else None,
            "deviation": statistics.stdev(rates) if rates else None,
            "loss": statistics.mean(motivated_losses) / statistics.mean(losses) if motivated_losses else None,
        }
    return by_stage


def _decisions(rows: Sequence[Mapping[str, Any]], text: str, seed: int, epoch_length: int) -> list[bool]:
    condition = parse(text, seed)
    if condition.uses_budget:
        raise SeekingError(f"{text} spends a budget, which rows in another order have not")
    return [
        condition.update(row["loss"], epoch_length=epoch_length, learning_rate=0.0, grad_norm=row.get("grad_norm"))
        for row in rows
    ]


def summarize(recipe: Recipe, records: Sequence[Mapping[str, Any]], metric: Metric) -> list[dict[str, Any]]:
    """One row for each arm, pair and budget: means, spreads, and paired differences from the reference."""
    rows = []
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((tuple(record["pair"]), record["budget"], record["arm"]), []).append(record)
    for (pair, budget, arm), group in groups.items():
        reference = {record["seed"]: record for record in groups.get((pair, budget, recipe.reference), ())}
        row: dict[str, Any] = {"arm": arm, "pair": list(pair), "budget": budget, "seeds": len(group)}
        for name in ("flops", "seconds", "motivated_share", "of_motivated_alone"):
            values = [record[name] for record in group if name in record]
            row[name] = statistics.mean(values) if values else None
        for model in MODELS:
            row[model] = estimate([record[model] for record in group])
            gains = [
                record[model] - reference[record["seed"]][model] for record in group if record["seed"] in reference
            ]
            row[f"{model}_gain"] = estimate(gains) if arm != recipe.reference and gains else None
            curves = [record[f"{model}_curve"] for record in group]
            targets = [record[model] for record in reference.values()]
            points = [first_reaching(curve, statistics.mean(targets), metric) for curve in curves] if targets else []
            reached = [point for point in points if point]
            row[f"{model}_reached"] = len(reached)
            row[f"{model}_epochs"] = statistics.mean(epochs for epochs, _ in reached) if reached else None
            row[f"{model}_flops"] = statistics.mean(flops for _, flops in reached) if reached else None
            row[f"{model}_curve"] = mean_curve(curves)
        row["evidence"] = mean_evidence([record["evidence"] for record in group if "evidence" in record])
        rows.append(row)
    return rows


def estimate(values: Sequence[float]) -> dict[str, Any]:
    """Mean, spread, and the half-width of the 95 % confidence interval of the mean (Student's t)."""
    from scipy import stats  # Slow to import, and most commands do not need it.

    statistic, count = spread(values), len(values)
    half_width = float(stats.t.ppf(0.975, count - 1)) * statistic["deviation"] / count**0.5 if count > 1 else None
    return {**statistic, "interval": half_width}


def first_reaching(curve: Sequence[Sequence[float]], target: float, metric: Metric) -> tuple[float, float] | None:
    """Epochs and FLOPs at the first evaluation that is as good as this; None if none is."""
    least = metric.goodness(target)
    return next(((epochs, flops) for epochs, flops, value in curve if metric.goodness(value) >= least), None)


def mean_curve(curves: Sequence[Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    """Training FLOPs and metric averaged over the seeds, at the epochs at which every seed was evaluated."""
    by_epoch: dict[float, list[Sequence[float]]] = {}
    for point in itertools.chain(*curves):
        by_epoch.setdefault(point[0], []).append(point)
    return [
        {"flops": statistics.mean(point[1] for point in points), **spread([point[2] for point in points])}
        for points in by_epoch.values()
        if len(points) == len(curves)
    ]


def mean_evidence(by_seed: Sequence[Mapping[str, Mapping[str, float | None]]]) -> dict[str, dict[str, float | None]]:
    """The mean over the seeds; ``deviation`` is the standard deviation of that mean, for independent seeds."""
    means: dict[str, dict[str, float | None]] = {}
    for stage in STAGES:
        for name in ("rate", "shuffled", "deviation", "loss"):
            values = [value for seed in by_seed if (value := seed.get(stage, {}).get(name)) is not None]
            if values:
                mean = math.hypot(*values) / len(values) if name == "deviation" else statistics.mean(values)
                means.setdefault(stage, {})[name] = mean
    return means
