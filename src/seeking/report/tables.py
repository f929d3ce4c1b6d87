"""Results as tables, for the terminal and for Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from seeking.training import Result

Rows = tuple[Sequence[str], list[Sequence[str]]]
"""A heading and the lines below it."""


def run_rows(result: Result) -> Rows:
    """One run's two models."""
    heading = ("model", "accuracy", "best (epoch)", "loss", "training GFLOPs a sample")
    rows: list[Sequence[str]] = []
    flops = {"base": result.cost.base_flops, "motivated": result.cost.motivated_flops}
    for name, found in result.metrics.items():
        best = result.best[name]
        accuracy = _percent(found["accuracy"]) if "accuracy" in found else "-"
        top = _percent(best["accuracy"]) if "accuracy" in best else f"{best['loss']:.4f}"
        rows.append((name, accuracy, f"{top} ({best['epoch']})", f"{found['loss']:.4f}", f"{flops[name] / 1e9:.4g}"))
    return heading, rows


def comparison_rows(summary: dict[str, Any]) -> Rows:
    """Accuracy of each model, in the pair and alone, over the seeds; the difference is taken seed by seed."""
    seeds = f"{summary['seeds']} seed" + ("s" if summary["seeds"] > 1 else "")
    heading = (f"accuracy, {seeds}", "in the pair", "alone", "difference")
    rows: list[Sequence[str]] = [
        (model, spread(found["together"]), spread(found["alone"]), spread(found["gain"], sign="+"))
        for model, found in summary["models"].items()
    ]
    return heading, rows


def cost_rows(summary: dict[str, Any]) -> Rows:
    """What each run cost, in the mean over the seeds."""
    names = {"pair": "the pair, both models", "base": "base alone", "motivated": "motivated alone"}
    rows: list[Sequence[str]] = [
        (names[arm], f"{cost['flops']['mean'] / 1e12:.3g}", f"{cost['seconds']['mean']:.0f}")
        for arm, cost in summary["arms"].items()
    ]
    return ("run", "training TFLOPs", "seconds"), rows


def cost_sentence(report: dict[str, float]) -> str:
    """What the pair's run cost against its alternatives."""
    return (
        f"{report['motivated_share']:.1%} of the batches were motivated. The run took "
        f"{report['of_motivated_alone']:.2f} of the training FLOPs of the motivated model alone, "
        f"{report['of_both_alone']:.2f} of those of both models alone."
    )


def terminal(rows: Rows, title: str | None = None) -> Table:
    """A table for rich."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name)
    for row in rows[1]:
        table.add_row(*row)
    return table


def markdown(rows: Rows) -> str:
    """A table for Markdown."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def spread(found: Mapping[str, Any], sign: str = "") -> str:
    """A mean of shares and its standard deviation, in per cent."""
    deviation = found["deviation"]
    around = f" ± {100 * deviation:.2f}" if deviation is not None else ""
    return f"{round(100 * found['mean'], 2) + 0.0:{sign}.2f}{around}"
