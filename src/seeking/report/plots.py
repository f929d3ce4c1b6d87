"""Figures of results."""

import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import EngFormatter, MaxNLocator

from seeking.choices import MODELS, Model, Role
from seeking.conditions.moving_average import accumulate
from seeking.report.analysis import LOSSES
from seeking.report.experiment import parity_text
from seeking.report.figures import plain, two_panels, widen
from seeking.report.metric import Metric, shown
from seeking.training.result import Result

BASE, MOTIVATED = "#2563a8", "#d1642b"
COLORS: Mapping[Model, str] = {"base": BASE, "motivated": MOTIVATED}
SMOOTHING = 0.9

BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
"""Where a legend lies to the right of its panel."""

NEIGHBORS = 51
"""Batches around a motivated one that its loss is compared with."""


def draw(results: Mapping[Role, Sequence[Result]], path: Path, title: str, best: str | None = None) -> None:
    """Save the learning curves of runs as a figure.

    Args:
        results: the runs of the ``pair``, and of ``base`` and ``motivated`` alone, if there are any.
        path: file to write; its suffix sets the format.
        title: title of the figure.
        best: metric by which the best weights are kept, if one is named; the evaluations are shown by it.
    """
    metric = shown(results["pair"][0].metrics.values(), best)
    compared = len(results) > 1
    with two_panels(path, title, 4.2) as (left, right):
        _training(left, results["pair"][0])
        if len(results["pair"]) > 1:
            left.set_title(f"Training, the first of {len(results['pair'])} seeds")
        for model, color in COLORS.items():
            label = f"{model}, in the pair" if compared else model
            _evaluation(right, results["pair"], model, metric, label, color, "-")
            if model in results:
                _evaluation(right, results[model], model, metric, f"{model}, alone", color, ":")
        right.set(xlabel="epoch", ylabel=metric.label, title="Evaluation")
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(results["pair"]) > 1:
            right.fill_between([], [], [], color="gray", alpha=0.25, label=f"range of {len(results['pair'])} seeds")
        _from_zero(right)
        _legend(right)
        for axes in (left, right):
            axes.grid(alpha=0.25)


def _training(axes: Any, result: Result) -> None:
    colors = {"loss": BASE, "motivated_loss": MOTIVATED}
    points = {key: (array("q"), array("d")) for key in colors}  # Numbers alone: of long runs, the rows are too many.
    batches = 0
    for row in result.rows():
        if row["kind"] == "step":
            batches += 1
            for key in colors & row.keys():
                points[key][0].append(row["step"])
                points[key][1].append(row[key])
    motivated = points["motivated_loss"][0]
    every = len(motivated) == batches
    labels = {"loss": "base", "motivated_loss": "motivated" if every else "motivated, on motivated batches alone"}
    for key, color in colors.items():
        if points[key][0]:
            axes.plot(points[key][0], _smooth(points[key][1]), color=color, label=labels[key])
    if motivated and points["loss"][0] and not every:
        steps, losses = (np.asarray(values) for values in points["loss"])
        axes.plot(
            motivated,
            np.full(len(motivated), 0.015),
            "|",
            color=MOTIVATED,
            alpha=0.5,
            transform=axes.get_xaxis_transform(),
            label="motivated batches" + how_easy(steps, losses, np.asarray(motivated)),
        )
    axes.set(xlabel="batch", ylabel="training loss, smoothed", title="Training")
    _from_zero(axes)
    _legend(axes)


def _legend(axes: Any, **options: Any) -> None:
    if axes.get_legend_handles_labels()[0]:  # The rows of a run may be lost.
        axes.legend(frameon=False, **options)


def _means(
    axes: Any, places: Sequence[float], estimates: Sequence[Mapping[str, Any]], spread: str, scale: float, **style: Any
) -> None:
    """A line through means, each with a bar of its spread (``deviation`` or ``interval``), if that is known."""
    means = [scale * estimate["mean"] for estimate in estimates]
    bars = [scale * (estimate[spread] or 0) for estimate in estimates]
    axes.errorbar(places, means, yerr=bars, **style)


def how_easy(steps: Any, losses: Any, motivated: Any) -> str:
    """How much lower the base's loss is on motivated batches than on those around them, in words."""
    known = np.isfinite(losses)
    if len(motivated) < 20 or len(motivated) == len(steps) or not known.all():
        return ""
    kernel = np.ones(min(NEIGHBORS, len(losses)))
    around = np.convolve(losses, kernel, "same") / np.convolve(np.ones(len(losses)), kernel, "same")
    chosen = np.isin(steps, motivated)
    difference = float((losses[chosen] / around[chosen]).mean() - 1)
    if abs(difference) < 0.005:
        return ":\nthe base's loss on them is as on those around them"
    return f":\nthe base's loss on them is {abs(difference):.0%} {'lower' if difference < 0 else 'higher'} than around"


def _from_zero(axes: Any) -> None:
    """Let an axis of losses or shares begin at zero, where differences look as large as they are."""
    if axes.get_ylim()[0] >= 0 or axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponential moving average with bias correction."""
    total, weight, smooth = 0.0, 0.0, []
    for value in values:
        total, weight = accumulate(value, total, weight, SMOOTHING)
        smooth.append(total / weight)
    return smooth


def _evaluation(
    axes: Any, results: Sequence[Result], model: str, metric: Metric, label: str, color: str, style: str
) -> None:
    by_epoch = [
        {row["epoch"]: row[model][metric.name] for row in _evaluations(result, model) if model in row}
        for result in results
    ]
    epochs = sorted(set.intersection(*map(set, by_epoch)))  # A resumed run may have other evaluation epochs.
    if not epochs:
        return
    curves = metric.scale * np.array([[values[epoch] for epoch in epochs] for values in by_epoch])
    mean = curves.mean(axis=0)
    axes.plot(epochs, mean, style, color=color, label=label, marker="." if len(epochs) < 3 else None)
    if len(curves) > 1:
        axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=color, alpha=0.12, linewidth=0)


def _evaluations(result: Result, model: str) -> Iterator[Mapping[str, Any]]:
    """The rows of evaluations; of the base, none before its first step, since until then it has learnt nothing."""
    trained = model != "base"
    rests = False
    for row in result.rows():
        if row["kind"] == "step":
            trained = trained or "loss" in row
            rests = not trained
        elif row["kind"] == "eval" and not rests:
            yield row


def draw_arms(rows: Sequence[Mapping[str, Any]], reference: str, path: Path, title: str, metric: Metric) -> None:
    """Save the metric of an experiment's arms: each seed, the mean and its 95 % confidence interval."""
    names = [plain(row["arm"]) for row in rows]
    with two_panels(path, title, 1.5 + 0.32 * len(rows), sharey=True) as panels:
        for panel, (model, color) in zip(panels, COLORS.items(), strict=True):
            for position, row in enumerate(rows):
                mean, half_width = metric.scale * row[model]["mean"], metric.scale * (row[model]["interval"] or 0)
                values = [metric.scale * value for value in row[model]["values"]]
                seed, interval = (None, None) if position else ("one seed", "mean, 95 % confidence interval")
                panel.plot(values, [position] * len(values), ".", color=color, alpha=0.45, label=seed)
                if len(values) > 1:
                    panel.errorbar(
                        mean, position, xerr=half_width, fmt="D", color=color, capsize=3, markersize=5, label=interval
                    )
                if row["arm"] == reference:
                    panel.axvline(mean, color="gray", linestyle=":", linewidth=1, label=f"mean of {plain(reference)}")
            widen(panel.xaxis, metric.least_span)
            panel.set(title=f"{model} model", xlabel=metric.label)
            panel.set_yticks(range(len(names)), names)
            panel.xaxis.set_major_locator(MaxNLocator(6))
            panel.grid(axis="x", alpha=0.25)
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
        _legend(panels[1], **BESIDE)


def draw_by_flops(rows: Sequence[Mapping[str, Any]], path: Path, title: str, metric: Metric) -> None:
    """Save the metric over training FLOPs: one line for each arm, one panel for each model.

    The points of a line are its budgets, at the FLOPs of both models. Without budgets they are the evaluations of a
    run, at the FLOPs of that run.
    """
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    colors = matplotlib.colormaps["tab10" if len(arms) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    with two_panels(path, title, 4.4) as panels:
        for panel, model in zip(panels, MODELS, strict=True):
            for arm, color in zip(arms, itertools.cycle(colors)):
                arm_rows = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["flops"])
                points = [{"flops": row["flops"], **row[model]} for row in arm_rows]
                if arm_rows[0]["budget"] is None:
                    points = arm_rows[0][f"{model}_curve"]
                _means(
                    panel,
                    [point["flops"] for point in points],
                    points,
                    "deviation",
                    metric.scale,
                    fmt=".-",
                    color=color,
                    linewidth=1.2,
                    elinewidth=0.6,
                    label=plain(arm),
                )
            panel.set(title=f"{model} model", xlabel="training FLOPs")
            panel.set_xlim(left=0)
            panel.xaxis.set_major_formatter(EngFormatter())
            panel.grid(alpha=0.25)
            widen(panel.yaxis, metric.least_span)
        seeds = max(row["seeds"] for row in rows)
        panels[0].set_ylabel(metric.label + (f", ± standard deviation of {seeds} seeds" if seeds > 1 else ", one seed"))
        _legend(panels[1], **BESIDE)


def draw_front(
    fronts: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    reference: str,
    path: Path,
    title: str,
    metric: Metric,
) -> None:
    """Save the difference of both models from their twins against cost: a line for each method, through its budgets.

    Args:
        fronts: of one pair.
        rows: of the same pair, as ``summarize`` returns them.
        reference: the arm of the twins.
        path: file to write; its suffix sets the format.
        title: title of the figure.
        metric: that the arms are compared by.
    """
    by_arm = {row["arm"]: row for row in rows}
    colors = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    level = metric.goodness(-metric.level)
    with two_panels(path, title, 4.2, sharex=True, sharey=True) as panels:
        for panel, model in zip(panels, MODELS, strict=True):
            panel.axhline(0, color="gray", linewidth=0.8)
            panel.axhline(level, color="gray", linestyle=":", linewidth=1, label=f"level: interval beyond {level:+g}")
            panel.plot(1, 0, "D", color="black", markersize=6, label=f"{plain(reference)}: 1.00")
            for number, front in enumerate(fronts):
                gains = [by_arm[arm][f"{model}_gain"] for arm in front["arms"]]
                color, parity = colors[number % len(colors)], front["parity"]
                _means(
                    panel,
                    front["costs"],
                    gains,
                    "interval",
                    metric.scale,
                    fmt="o-",
                    color=color,
                    markersize=4,
                    capsize=3,
                    linewidth=1.2,
                    elinewidth=0.8,
                    label=f"{plain(front['name'])}: {parity_text(front)}",
                )
                if parity is not None:
                    panel.axvline(parity, color=color, linestyle="--", linewidth=0.8)
            panel.set(title=f"{model} model", xlabel=f"training FLOPs over {plain(reference)}")
            panel.grid(alpha=0.25)
        widen(panels[0].yaxis, metric.least_span)
        panels[0].set_ylabel(f"{metric.label}, difference from its twin")
        _legend(panels[1], **BESIDE, title="cost of parity")


def draw_analysis(analysis: Mapping[str, Any], path: Path, title: str) -> None:
    """Save the agreement of the gradients over a run beside what a step does or, if known, the line to another base."""
    rows = analysis["checkpoints"]
    steps = [row["step"] for row in rows]
    with two_panels(path, title, 4.2) as (left, right):
        means = np.array([row["batch_agreement"]["mean"] for row in rows])
        deviations = np.array([row["batch_agreement"]["deviation"] or 0 for row in rows])
        left.fill_between(steps, means - deviations, means + deviations, color="gray", alpha=0.2, linewidth=0)
        left.plot(steps, means, ".-", color="gray", label="of a batch, ± standard deviation")
        left.plot(steps, [row["agreement"] for row in rows], ".-", color=BASE, label="of the mean gradients")
        left.axhline(0, color="black", linewidth=0.6)
        left.set(xlabel="batch", ylabel="cosine on the shared weights", title="Agreement of the two gradients")
        if line := analysis.get("line"):
            positions = [point["position"] for point in line]
            for (name, label), style in zip(LOSSES.items(), (":", "-"), strict=True):
                right.plot(positions, [point[name] for point in line], style, color=BASE, label=label)
            right.set(xlabel="0: the base in the pair, 1: alone", ylabel="loss", title="Between the two bases")
        else:
            for name, color in COLORS.items():
                changes = [row[f"{name}_step"] for row in rows]
                label = f"a step of the {name} model"
                _means(right, steps, changes, "deviation", 1.0, fmt=".-", color=color, label=label)
            right.axhline(0, color="black", linewidth=0.6)
            right.set(xlabel="batch", ylabel="change", title="Held-out loss of the base, changed by one step")
        for panel in (left, right):
            _legend(panel)
            panel.grid(alpha=0.25)


def draw_evidence(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Save how often the condition held in each third of the runs, and on the same losses in random order."""
    conditional = [row for row in rows if row["evidence"]]
    names = [plain(row["arm"]) + (f", {row['budget']:g} epochs' FLOPs" if row["budget"] else "") for row in conditional]
    stages = list(dict.fromkeys(stage for row in conditional for stage in row["evidence"]))
    with two_panels(path, title, max(2.6, 1.2 + 0.32 * len(conditional)), sharey=True) as (left, right):
        for number, stage in enumerate(stages):
            for position, row in enumerate(conditional):
                evidence = row["evidence"].get(stage)
                if evidence is None:
                    continue
                height = position + (number - 1) * 0.22
                if "shuffled" in evidence:
                    shuffled, width = evidence["shuffled"], 2 * evidence["deviation"]
                    left.errorbar(shuffled, height, xerr=width, fmt="|", color="gray", linewidth=1)
                left.plot(evidence["rate"], height, "o", color=f"C{number}", markersize=4)
                if "loss" in evidence:
                    right.plot(evidence["loss"], height, "o", color=f"C{number}", markersize=4)
            right.plot([], [], "o", color=f"C{number}", markersize=4, label=stage)
        left.set(title="motivated batches", xlabel="share of the batches")
        right.set(
            title="base's loss on motivated batches",
            xlabel="over its mean loss\n(below 1 by construction, where the loss has to fall)",
        )
        right.axvline(1, color="gray", linestyle=":", linewidth=1)
        widen(right.xaxis, 0.1)
        left.set_xlim(left=0)
        left.set_yticks(range(len(conditional)), names)
        left.invert_yaxis()
        if any("shuffled" in evidence for row in conditional for evidence in row["evidence"].values()):
            right.errorbar(
                [], [], xerr=[], fmt="|", color="gray", linewidth=1, label="losses shuffled,\n± 2 deviations"
            )
        _legend(right, **BESIDE)
        for panel in (left, right):
            panel.grid(axis="x", alpha=0.25)
