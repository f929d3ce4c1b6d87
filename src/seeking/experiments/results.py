"""What the runs of a recipe gave: accuracy, cost, and how much of the condition is noise."""

import itertools
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seeking.checkpointing.metrics_log import read_rows
from seeking.conditions import parse
from seeking.experiments.compare import spread
from seeking.experiments.recipe import PRETRAINING, Recipe, Trial
from seeking.files import MAX_OPTIONS_BYTES, read_json

SHUFFLES = 50
"""Random orders of a run's losses that its condition is compared with."""

STAGES = ("early", "midway", "late")

MODELS = ("base", "motivated")


def gather(trial: Trial, root: Path) -> dict[str, Any]:
    """The record of a trial that is done: accuracies, FLOPs, seconds, curves and the evidence on its condition."""
    # What goes before all arms alike is no part of what any of them costs.
    own = [run for run in trial.runs if not run.folder.startswith(PRETRAINING)]
    summaries = {run.folder: read_json(root / run.folder / "summary.json", MAX_OPTIONS_BYTES) for run in own}
    rows = {run.folder: [*read_rows(root / run.folder / "metrics.jsonl")] for run in own}
    epochs = {run.folder: run.config.epochs for run in own}
    record: dict[str, Any] = {
        "arm": trial.arm,
        "pair": list(trial.pair),
        "budget": trial.budget,
        "seed": trial.seed,
        "runs": [run.folder for run in trial.runs],
        "flops": sum(one["cost"]["total"] for one in summaries.values()),
        "seconds": sum(one["seconds"]["total"] for one in summaries.values()),
    }
    for model, (run, name) in trial.models.items():
        record[model] = summaries[run.folder]["metrics"][name]["accuracy"]
        before = {"epochs": 0.0, "flops": 0.0}
        if run.after in summaries:  # What it takes before this run's first step, too.
            before = {"epochs": epochs[run.after], "flops": summaries[run.after]["cost"]["total"]}
        record[f"{model}_curve"] = curve(rows[run.folder], name, before)
    for run in own:
        if run.stage.conditional:
            cost = summaries[run.folder]["cost"]
            record |= {name: cost[name] for name in ("motivated_share", "of_motivated_alone")}
            record["evidence"] = evidence(rows[run.folder], run.config.condition, run.config.seed)
    return record


def curve(rows: Sequence[Mapping[str, Any]], model: str, before: Mapping[str, float]) -> list[list[float]]:
    """Accuracy by epoch: epochs, training FLOPs so far and accuracy, on top of what was spent before this run."""
    return [
        [row["epoch"] + before["epochs"], row["flops"] + before["flops"], row[model]["accuracy"]]
        for row in rows
        if row["kind"] == "eval" and model in row
    ]


def evidence(rows: Sequence[Mapping[str, Any]], condition: str, seed: int) -> dict[str, dict[str, float | None]]:
    """The condition against chance, in each third of a run.

    ``rate``: the share of motivated batches. ``shuffled``: how often the condition holds on the same third's losses in
    random orders, which have no trend. ``deviation``: between those orders. ``loss``: the base's mean loss on motivated
    batches over its mean loss.
    """
    steps = [row for row in rows if row["kind"] == "step" and "loss" in row]
    length = next((row["epoch_length"] for row in rows if row["kind"] == "start"), len(steps))
    draw = random.Random(seed)
    found: dict[str, dict[str, float | None]] = {}
    for number, stage in enumerate(STAGES):
        part = steps[number * len(steps) // 3 : (number + 1) * len(steps) // 3]
        if not part:
            continue
        losses = [row["loss"] for row in part]
        chosen = [row["loss"] for row in part if "motivated_loss" in row]
        rates = []
        for order in range(SHUFFLES):  # Twice, since a condition that has seen nothing yet does not hold.
            before, then = (draw.sample(losses, len(losses)) for _ in range(2))
            rates.append(statistics.mean(_held([*before, *then], condition, seed + order, length)[len(before) :]))
        found[stage] = {
            "rate": len(chosen) / len(part),
            "shuffled": statistics.mean(rates),
            "deviation": statistics.stdev(rates),
            "loss": statistics.mean(chosen) / statistics.mean(losses) if chosen else None,
        }
    return found


def _held(losses: Sequence[float], condition: str, seed: int, epoch_length: int) -> list[bool]:
    again = parse(condition, seed)
    return [again.update(loss, epoch_length=epoch_length, learning_rate=0.0) for loss in losses]


def summarise(recipe: Recipe, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each arm of each pair and budget: means, spreads, and differences from the reference by seed."""
    rows = []
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((tuple(record["pair"]), record["budget"], record["arm"]), []).append(record)
    for (pair, budget, arm), group in groups.items():
        reference = {one["seed"]: one for one in groups.get((pair, budget, recipe.reference), ())}
        row: dict[str, Any] = {"arm": arm, "pair": list(pair), "budget": budget, "seeds": len(group)}
        for name in ("flops", "seconds", "motivated_share", "of_motivated_alone"):
            values = [one[name] for one in group if name in one]
            row[name] = statistics.mean(values) if values else None
        for model in MODELS:
            row[model] = estimate([one[model] for one in group])
            paired = [one[model] - reference[one["seed"]][model] for one in group if one["seed"] in reference]
            row[f"{model}_gain"] = estimate(paired) if arm != recipe.reference and paired else None
            target = [one[model] for one in reference.values()]
            reached = [reach(one[f"{model}_curve"], statistics.mean(target)) for one in group] if target else []
            there = [one for one in reached if one]
            row[f"{model}_reached"] = len(there)
            row[f"{model}_epochs"] = statistics.mean(one[0] for one in there) if there else None
            row[f"{model}_flops"] = statistics.mean(one[1] for one in there) if there else None
            row[f"{model}_curve"] = mean_curve([one[f"{model}_curve"] for one in group])
        row["evidence"] = mean_evidence([one["evidence"] for one in group if "evidence" in one])
        rows.append(row)
    return rows


def estimate(values: Sequence[float]) -> dict[str, Any]:
    """Their spread, and the half-width of the 95 % confidence interval (Student's t) of the mean."""
    from scipy import stats  # Slow to import, and most commands need none of it.

    found, count = spread(values), len(values)
    half = float(stats.t.ppf(0.975, count - 1)) * found["deviation"] / count**0.5 if count > 1 else None
    return {**found, "interval": half}


def reach(found: Sequence[Sequence[float]], target: float) -> tuple[float, float] | None:
    """The first epoch at whose end this accuracy is reached, and the FLOPs until then."""
    return next(((epoch, flops) for epoch, flops, accuracy in found if accuracy >= target), None)


def mean_curve(curves: Sequence[Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    """Training FLOPs and accuracy of all seeds together, at the epochs after which each of them was evaluated."""
    by_epoch: dict[float, list[Sequence[float]]] = {}
    for point in itertools.chain(*curves):
        by_epoch.setdefault(point[0], []).append(point)
    return [
        {"flops": statistics.mean(point[1] for point in points), **spread([point[2] for point in points])}
        for points in by_epoch.values()
        if len(points) == len(curves)
    ]


def mean_evidence(each: Sequence[Mapping[str, Mapping[str, float | None]]]) -> dict[str, dict[str, float | None]]:
    """The mean over seeds; ``deviation`` is that of such a mean, the seeds being independent."""
    found: dict[str, dict[str, float | None]] = {}
    for stage in STAGES:
        for name in ("rate", "shuffled", "deviation", "loss"):
            values = [value for one in each if (value := one.get(stage, {}).get(name)) is not None]
            if values:
                mean = math.hypot(*values) / len(values) if name == "deviation" else statistics.mean(values)
                found.setdefault(stage, {})[name] = mean
    return found
