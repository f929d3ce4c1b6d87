"""Tables of results, for the terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from seeking.data import SplitUse
from seeking.report.metric import LOSS, Metric, shown
from seeking.training.result import Result

Rows = tuple[Sequence[str], Sequence[Sequence[str]]]
"""A header and the rows below it."""


def split_rows(splits: Sequence[SplitUse], unit: str) -> Rows:
    """What each split of a data set is used for."""
    rows = [
        (split.use, split.source, "-" if split.classes is None else f"{split.classes:,}", f"{split.images:,}")
        for split in splits
    ]
    return ("split", "from", "classes", unit), rows


def run_rows(result: Result) -> Rows:
    """The models of one run."""
    metric = shown(result.metrics.values())
    heading = (
        "model",
        "accuracy" if metric is LOSS else metric.title,
        "best (epoch)",
        "loss",
        "training GFLOPs a sample",
    )
    rows = []
    for name, metrics in result.metrics.items():
        best, flops = result.best[name], result.cost.of_sample(name) / 1e9
        score = "-" if metric is LOSS else metric.number(metrics[metric.name])
        best_score = metric.number(best[metric.name])
        rows.append((name, score, f"{best_score} ({best['epoch']})", f"{metrics['loss']:.4f}", f"{flops:.4g}"))
    return heading, rows


def comparison_rows(summary: dict[str, Any], metric: Metric) -> Rows:
    """The metric of each model, in the pair and alone, over the seeds, with the paired difference."""
    seeds = f"{summary['seeds']} seed" + ("s" if summary["seeds"] > 1 else "")
    heading = (f"{metric.title}, {seeds}", "in the pair", "alone", "difference")
    rows = [
        (
            model,
            spread(scores["together"], metric),
            spread(scores["alone"], metric),
            spread(scores["gain"], metric, sign="+", like=scores["alone"]["mean"]),
        )
        for model, scores in summary["models"].items()
    ]
    return heading, rows


def cost_rows(summary: dict[str, Any]) -> Rows:
    """Cost of each arm, averaged over the seeds."""
    names = {"pair": "the pair, both models", "base": "base alone", "motivated": "motivated alone"}
    rows = [
        (names[arm], f"{cost['flops']['mean'] / 1e12:.3g}", f"{cost['seconds']['mean']:.0f}")
        for arm, cost in summary["arms"].items()
    ]
    return ("run", "training TFLOPs", "seconds"), rows


def cost_sentence(report: dict[str, float]) -> str:
    """Cost of the pair's run relative to training one or both models alone."""
    return (
        f"{report['motivated_share']:.1%} of the batches were motivated. The run took "
        f"{report['of_motivated_alone']:.2f} of the training FLOPs of the motivated model alone, "
        f"{report['of_both_alone']:.2f} of those of both models alone."
    )


def terminal(rows: Rows, title: str | None = None) -> Table:
    """A rich table."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, overflow="fold")  # A number that is cut off is another one.
    for row in rows[1]:
        table.add_row(*row)
    return table


def markdown(rows: Rows) -> str:
    """A Markdown table."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(estimate: Mapping[str, Any], metric: Metric, sign: str = "", like: float | None = None) -> str:
    """Mean and standard deviation of a metric, with the digits of the mean or of another value."""
    deviation, like = estimate["deviation"], estimate["mean"] if like is None else like
    deviation_text = f" ± {metric.number(deviation, like=like)}" if deviation is not None else ""
    return f"{metric.number(estimate['mean'], sign, like)}{deviation_text}"
