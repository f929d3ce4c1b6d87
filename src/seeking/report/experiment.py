"""The results of an experiment as a Markdown page."""

from collections.abc import Mapping, Sequence
from typing import Any

from seeking.choices import MODELS
from seeking.report.metric import Metric
from seeking.report.tables import markdown, spread

Row = Mapping[str, Any]
Front = Mapping[str, Any]


def page(
    title: str,
    reference: str,
    rows: Sequence[Row],
    about: Mapping[str, Any],
    metric: Metric,
    fronts: Sequence[Front] = (),
) -> str:
    """All tables of an experiment.

    Args:
        title: title of the recipe.
        reference: the arm that the others are compared with.
        rows: what ``summarize`` returns.
        about: facts about the runs, by name: command, options, machine, versions.
        metric: that the arms are compared by.
        fronts: of each method and pair, if the reference trains the twins.
    """
    parts = [f"# {title}\n"]
    parts += ["".join(f"- {name}: {value}\n" for name, value in about.items())]
    for pair, budget in dict.fromkeys((tuple(row["pair"]), row["budget"]) for row in rows):
        group = [row for row in rows if (tuple(row["pair"]), row["budget"]) == (pair, budget)]
        budget_text = f", FLOPs of {budget:g} epochs of {pair[1]}" if budget else ""
        parts += [f"## {pair[0]} in {pair[1]}{budget_text}\n", qualities(group, reference, metric)]
        parts.append(costs(group, reference, metric))
        if of_pair := [front for front in fronts if tuple(front["pair"]) == pair]:
            parts.append(parity(of_pair, reference, metric))
        if any(row["evidence"] for row in group):
            parts.append(evidence(group))
    return "\n".join(parts)


def qualities(rows: Sequence[Row], reference: str, metric: Metric) -> str:
    """The metric after the last epoch, and the paired difference from the reference."""
    heading = ("arm", "base", f"over {reference}", "motivated", f"over {reference}", "batches motivated")
    lines = [
        [
            f"{row['arm']} ({row['seeds']} seed{'s' if row['seeds'] > 1 else ''})",
            *(
                cell
                for model in MODELS
                for cell in (spread(row[model], metric), _gain(row[f"{model}_gain"], metric, row[model]["mean"]))
            ),
            f"{row['motivated_share']:.1%}" if row["motivated_share"] is not None else "",
        ]
        for row in rows
    ]
    note = (
        f"{metric.sentence}, mean ± standard deviation; differences, seed by seed, with their 95 % confidence "
        "interval.\n"
    )
    return markdown((heading, lines)) + "\n" + note


def costs(rows: Sequence[Row], reference: str, metric: Metric) -> str:
    """Cost of each arm, and when it is as good as the reference in the end."""
    flops = next((row["flops"] for row in rows if row["arm"] == reference), None)
    heading = (
        "arm",
        "training TFLOPs",
        f"FLOPs over {reference}",
        "FLOPs over the larger model alone",
        f"base as good as {reference}",
        f"motivated as good as {reference}",
    )
    lines = [
        [
            row["arm"],
            f"{row['flops'] / 1e12:.3g}",
            f"{row['flops'] / flops:.2f}" if flops else "",
            f"{row['of_motivated_alone']:.2f}" if row["of_motivated_alone"] else "",
            *(_reached(row, model) for model in MODELS),
        ]
        for row in rows
    ]
    note = (
        f"The last two columns: epochs and training TFLOPs until the mean final {metric.title} of {reference} is first "
        "reached, averaged over the seeds that reach it; in brackets, how many do, if not all.\n"
    )
    return markdown((heading, lines)) + "\n" + note


def evidence(rows: Sequence[Row]) -> str:
    """How often the condition held, and how often it holds on the same losses in random order."""
    conditional = [row for row in rows if row["evidence"]]
    stages = list(conditional[0]["evidence"])
    heading = ("arm", *(f"{stage}: {column}" for stage in stages for column in ("rate (shuffled)", "loss")))
    lines = [
        [row["arm"], *(cell for stage in stages for cell in _stage(row["evidence"].get(stage)))] for row in conditional
    ]
    note = (
        "Rate: share of motivated batches; in brackets, the rate of the condition on the same losses in random order, "
        "± one standard deviation, if it decides by losses and gradient norms alone. Each is computed in a third of "
        "the run and averaged over the seeds. Loss: the mean loss of motivated batches over the mean loss.\n"
    )
    return markdown((heading, lines)) + "\n" + note


def parity(fronts: Sequence[Front], reference: str, metric: Metric) -> str:
    """The cost of parity of each method of one pair."""
    end, level = (
        ("lower", f"below -{metric.level:g}") if metric.higher_is_better else ("upper", f"above {metric.level:g}")
    )
    heading = ("method", "cost of parity", f"cost over {reference}: {end} end of the worse model's difference")
    rows = [(reference, "1.00", "")]
    rows += [(front["name"], parity_text(front), ", ".join(_margins(front, metric))) for front in fronts]
    note = (
        f"Cost of parity: the least training FLOPs, over those of {reference}, at which both models are level with "
        f"{reference}: the {end} end of each difference's 95 % confidence interval is not {level} "
        f"{'points' if metric.unit == '%' else metric.title}. Linear between neighboring budgets.\n"
    )
    return markdown((heading, rows)) + "\n" + note


def parity_text(front: Front) -> str:
    """The cost of parity in words: how far it was searched where it was not found, or is below what was tried."""
    known = [cost for cost, margin in zip(front["costs"], front["margins"], strict=True) if margin is not None]
    if not known:
        return "needs two seeds"
    if front["parity"] is None:
        return f"none up to {known[-1]:.2f}"
    return f"{'at most ' if front['parity'] == known[0] else ''}{front['parity']:.2f}"


def _margins(front: Front, metric: Metric) -> list[str]:
    return [
        f"{cost:.2f}" + ("" if margin is None else f": {metric.goodness(margin) + 0.0:+.{metric.digits}f}")
        for cost, margin in zip(front["costs"], front["margins"], strict=True)
    ]


def _gain(gain: Mapping[str, Any] | None, metric: Metric, like: float) -> str:
    if not gain:
        return ""
    mean, half_width = gain["mean"], gain["interval"]
    ends = () if half_width is None else (mean - half_width, mean + half_width)
    interval = f" ({' to '.join(metric.number(end, '+', like) for end in ends)})" if ends else ""
    return metric.number(mean, "+", like) + interval


def _reached(row: Row, model: str) -> str:
    if row[f"{model}_epochs"] is None:
        return "never"
    count = f" ({row[f'{model}_reached']} of {row['seeds']})" if row[f"{model}_reached"] < row["seeds"] else ""
    return f"{row[f'{model}_epochs']:.1f}, {row[f'{model}_flops'] / 1e12:.3g}{count}"


def _stage(evidence: Mapping[str, float] | None) -> tuple[str, str]:
    if not evidence:
        return "", ""
    rate = f"{evidence['rate']:.3f}"
    if "shuffled" in evidence:
        rate += f" ({evidence['shuffled']:.3f} ± {evidence['deviation']:.3f})"
    return rate, f"{evidence['loss']:.3f}" if "loss" in evidence else ""
