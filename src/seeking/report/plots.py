"""Results as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from seeking.experiments.run import Role
from seeking.training import Result

BASE, MOTIVATED = "#2563a8", "#d1642b"
SMOOTHING = 0.9


def draw(results: Mapping[Role, Sequence[Result]], path: Path, title: str) -> None:
    """Save the learning curves of runs as a picture.

    Args:
        results: ``pair``, and ``base`` and ``motivated`` where they were trained alone, each with its runs.
        path: of the picture; the ending says of which kind.
        title: above it.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    figure.suptitle(title)
    _training(left, results["pair"][0])
    metric = "accuracy" if "accuracy" in results["pair"][0].metrics.get("base", {}) else "loss"
    colours: dict[Role, str] = {"base": BASE, "motivated": MOTIVATED}
    for model, colour in colours.items():
        _evaluation(right, results["pair"], model, metric, f"{model}, in the pair", colour, "-")
        if model in results:
            _evaluation(right, results[model], "base", metric, f"{model}, alone", colour, ":")
    right.set(xlabel="epoch", ylabel=f"{metric} (%)" if metric == "accuracy" else metric, title="Evaluation")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _training(axes: Any, result: Result) -> None:
    steps = [row for row in result.history if row["kind"] == "step"]
    motivated = [row for row in steps if "motivated_loss" in row]
    for label, colour, rows, key in (
        ("base", BASE, steps, "loss"),
        ("motivated (on motivated batches)", MOTIVATED, motivated, "motivated_loss"),
    ):
        if rows:
            axes.plot([row["step"] for row in rows], _smooth([row[key] for row in rows]), color=colour, label=label)
    if motivated:
        axes.plot(
            [row["step"] for row in motivated],
            np.full(len(motivated), 0.015),
            "|",
            color=MOTIVATED,
            alpha=0.5,
            transform=axes.get_xaxis_transform(),
            label="motivated batches",
        )
    axes.set(xlabel="batch", ylabel="training loss, smoothed", title="Training, in the pair")
    axes.legend(frameon=False)


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponentially weighted means, corrected for where they start."""
    mean, weight, smooth = 0.0, 0.0, []
    for value in values:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        smooth.append(mean / weight)
    return smooth


def _evaluation(
    axes: Any, results: Sequence[Result], model: str, metric: str, label: str, colour: str, style: str
) -> None:
    curves = np.array(
        [[row[model][metric] for row in result.history if row["kind"] == "eval" and model in row] for result in results]
    )
    if not curves.size:
        return
    curves = curves * 100 if metric == "accuracy" else curves
    epochs = np.arange(1, curves.shape[1] + 1)
    mean = curves.mean(axis=0)
    axes.plot(epochs, mean, style, color=colour, label=label, marker="." if len(epochs) < 3 else None)
    if len(curves) > 1:
        axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.12, linewidth=0)
