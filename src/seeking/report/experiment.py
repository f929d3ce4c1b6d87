"""The results of a recipe as a page of Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from seeking.report.tables import markdown, spread

Row = Mapping[str, Any]


def page(title: str, reference: str, rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """All tables of an experiment.

    Args:
        title: of the recipe.
        reference: the arm that the others are compared with.
        rows: as ``summarise`` gives them.
        about: where the figures come from, by name.
    """
    parts = [f"# {title}\n"]
    parts += ["".join(f"- {name}: {value}\n" for name, value in about.items())]
    for pair, budget in dict.fromkeys((tuple(row["pair"]), row["budget"]) for row in rows):
        chosen = [row for row in rows if (tuple(row["pair"]), row["budget"]) == (pair, budget)]
        spent = f", FLOPs of {budget:g} epochs of {pair[1]}" if budget else ""
        parts += [f"## {pair[0]} in {pair[1]}{spent}\n", accuracies(chosen, reference), costs(chosen, reference)]
        if any(row["evidence"] for row in chosen):
            parts.append(evidence(chosen))
    return "\n".join(parts)


def accuracies(rows: Sequence[Row], reference: str) -> str:
    """Accuracy after the last epoch, and the difference from the reference, seed by seed."""
    heading = ("arm", "base", f"over {reference}", "motivated", f"over {reference}", "batches motivated")
    lines = [
        [
            f"{row['arm']} ({row['seeds']} seed{'s' if row['seeds'] > 1 else ''})",
            *(cell for model in ("base", "motivated") for cell in (spread(row[model]), _gain(row[f"{model}_gain"]))),
            f"{row['motivated_share']:.1%}" if row["motivated_share"] is not None else "",
        ]
        for row in rows
    ]
    note = "Accuracy in %, mean ± standard deviation; differences, seed by seed, with their 95 % confidence interval.\n"
    return markdown((heading, list(lines))) + "\n" + note


def costs(rows: Sequence[Row], reference: str) -> str:
    """What the arms cost, and when they reach the reference's final accuracy."""
    flops = next((row["flops"] for row in rows if row["arm"] == reference), None)
    heading = (
        "arm",
        "training TFLOPs",
        f"over {reference}",
        "over the larger model alone",
        "seconds",
        f"base as good as {reference}",
        f"motivated as good as {reference}",
    )
    lines = [
        [
            row["arm"],
            f"{row['flops'] / 1e12:.3g}",
            f"{row['flops'] / flops:.2f}" if flops else "",
            f"{row['of_motivated_alone']:.2f}" if row["of_motivated_alone"] else "",
            f"{row['seconds']:.0f}",
            *(_reached(row, model) for model in ("base", "motivated")),
        ]
        for row in rows
    ]
    note = f"The last two columns: epochs, and training TFLOPs, until the final accuracy of {reference} (its mean) is "
    note += "first reached, the mean of the seeds that reach it; in brackets, how many, if not all.\n"
    return markdown((heading, list(lines))) + "\n" + note


def evidence(rows: Sequence[Row]) -> str:
    """How often the condition held, and how often it holds on the same losses in random orders."""
    found = [row for row in rows if row["evidence"]]
    stages = list(found[0]["evidence"])
    heading = ("arm", *(f"{stage}: {what}" for stage in stages for what in ("rate (shuffled)", "loss")))
    lines = [[row["arm"], *(cell for stage in stages for cell in _stage(row["evidence"].get(stage)))] for row in found]
    note = (
        "Rate: share of motivated batches, and in brackets how often the condition holds on the losses of that third "
        "of the run in random orders, ± what chance makes of that figure (a standard deviation). Both are means over "
        "the seeds. Loss: of motivated batches over the mean.\n"
    )
    return markdown((heading, list(lines))) + "\n" + note


def _gain(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    mean, half = 100 * found["mean"], found["interval"]
    return f"{mean:+.2f}" + (f" ({mean - 100 * half:+.2f} to {mean + 100 * half:+.2f})" if half is not None else "")


def _reached(row: Row, model: str) -> str:
    if row[f"{model}_epochs"] is None:
        return "never"
    count = f" ({row[f'{model}_reached']} of {row['seeds']})" if row[f"{model}_reached"] < row["seeds"] else ""
    return f"{row[f'{model}_epochs']:.1f}, {row[f'{model}_flops'] / 1e12:.3g}{count}"


def _stage(found: Mapping[str, float] | None) -> tuple[str, str]:
    if not found:
        return "", ""
    rate = f"{found['rate']:.3f} ({found['shuffled']:.3f} ± {found['deviation']:.3f})"
    return rate, f"{found['loss']:.3f}" if "loss" in found else ""
