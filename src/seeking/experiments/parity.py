"""Cost of parity: the least FLOPs, over those of training both alone, at which both are level with their twins."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seeking.choices import MODELS
from seeking.experiments.recipe import Recipe
from seeking.report.metric import Metric

TWINS = "ordinary"
"""The method that trains the twins."""


def fronts(recipe: Recipe, rows: Sequence[Mapping[str, Any]], metric: Metric) -> list[dict[str, Any]]:
    """The front of each method, of arms that differ in budget, length and searched options alone, and its parity.

    Args:
        recipe: whose arms these are.
        rows: what ``summarize`` returns.
        metric: that the arms are compared by.

    Returns:
        For each pair and method: ``name``, ``pair``, ``arms`` by rising cost, their ``costs`` and ``margins``, and
        ``parity``, its cost, or None if it is not reached. Costs are FLOPs over those of both twins. A margin is the
        lower end of the interval of the worse model's difference from its twin, in the units of the metric as shown,
        higher being better; None without an interval. Empty if the reference is not ordinary training, or if budgets
        set the numbers of epochs.
    """
    if recipe.budgets or recipe.method(recipe.reference).name != TWINS:
        return []
    flops = {tuple(row["pair"]): row["flops"] for row in rows if row["arm"] == recipe.reference}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        arm = row["arm"]
        if not flops.get(tuple(row["pair"])):  # Of models without products, none are counted.
            continue
        if arm != recipe.reference:
            options = {**recipe.merged(recipe.arms[arm]), "method": recipe.method(arm).name, "pair": row["pair"]}
            fixed = options.keys() - {"budget", "length", *recipe.search[arm]}
            groups.setdefault(repr([(name, options[name]) for name in sorted(fixed)]), []).append(row)
    result = []
    for group in groups.values():
        points = sorted((row["flops"] / flops[tuple(row["pair"])], row["arm"], margin(row, metric)) for row in group)
        costs, arms, margins = zip(*points, strict=True)
        known = [(cost, value) for cost, value in zip(costs, margins, strict=True) if value is not None]
        result.append(
            {
                "name": common_name(arms),
                "pair": group[0]["pair"],
                "arms": [*arms],
                "costs": [*costs],
                "margins": [*margins],
                "parity": cost_of_parity(known, -metric.level),
            }
        )
    return result


def margin(row: Mapping[str, Any], metric: Metric) -> float | None:
    """Lower end of the interval of the worse model's difference from its twin; higher is better."""
    gains = [row[f"{model}_gain"] for model in MODELS]
    if any(gain is None or gain["interval"] is None for gain in gains):
        return None
    return metric.scale * min(float(metric.goodness(gain["mean"]) - gain["interval"]) for gain in gains)


def cost_of_parity(points: Iterable[tuple[float, float]], level: float) -> float | None:
    """The least cost at which the margin is at least ``level``, linear between neighboring costs.

    Args:
        points: cost and margin of each budget.
        level: margin from which both models count as level with their twins.

    Returns:
        The cost; None if no margin is that high. If that of the least cost is, parity may be cheaper still.
    """
    before: tuple[float, float] | None = None
    for cost, value in sorted(points):
        if value >= level:
            if before is None or not math.isfinite(before[1]):
                return cost
            return cost - (cost - before[0]) * (value - level) / (value - before[1])
        before = cost, value
    return None


def common_name(arms: Sequence[str]) -> str:
    """The words that the names of a method's arms have in common, without the word budget at their end; else all."""
    if len(arms) == 1:
        return arms[0]
    words = [arm.replace(",", " ").split() for arm in arms]
    common = [word for word in arms[0].split() if all(word.strip(",") in each for each in words)]
    return re.sub(r"(\W*\bbudget)?\W*$", "", " ".join(common)) or ", ".join(arms)
