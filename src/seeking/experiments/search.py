"""The search of the options of an experiment's arms."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from seeking.choices import MODELS, Model
from seeking.errors import DivergedError
from seeking.experiments.parallel import RunListener, check_trials, is_finished, raise_failures, run_all
from seeking.experiments.recipe import Recipe, Trial
from seeking.experiments.results import metric_of
from seeking.files import read_json, write_json, writing
from seeking.report.metric import Metric

SEARCH_FILE = "search.json"

SEARCH_SEED = 1_000_000
"""Seed of the runs of the search; the arms use other seeds."""
SEARCH_VALIDATION = 0.1
"""Share of the training data that the search holds out and evaluates on."""


def search(
    recipe: Recipe,
    root: Path,
    ratio: Mapping[tuple[str, str], float],
    jobs: int,
    listener: RunListener,
    arms: Collection[str],
) -> Recipe:
    """Search the options of these arms; returns the recipe with the best ones.

    Every candidate is trained with one seed, on the first pair and the middle budget, and evaluated on held-out
    training data. The best candidate has the best mean metric of the two models. Models that are trained alone are
    searched separately.

    Raises:
        SeekingError: the options of a trial are not valid.
        RunError: a trial fails otherwise than by diverging, or the results cannot be written.
    """
    metric = metric_of(recipe)
    path = root / SEARCH_FILE
    results = read_json(path) if path.exists() else {}
    budget = sorted(recipe.budgets)[(len(recipe.budgets) - 1) // 2] if recipe.budgets else None
    pair = recipe.pairs[0]

    def candidate(arm: str, options: dict[str, Any]) -> Trial:
        parent = f"search/{in_words(options)}"
        return recipe.trial(
            arm, pair, budget, SEARCH_SEED, ratio[pair], parent, **options, validation=SEARCH_VALIDATION
        )

    candidates = {
        arm: [(options, candidate(arm, options)) for options in recipe.candidates(arm)]
        for arm, grid in recipe.search.items()
        if grid and arm in arms and arm not in results
    }
    everything = [trial for trials in candidates.values() for _, trial in trials]
    check_trials(everything)
    failed = run_all(everything, root, jobs, listener)
    raise_failures({folder: error for folder, error in failed.items() if not isinstance(error, DivergedError)})
    for arm, trials in candidates.items():
        scores = [{"options": options, **scores_of(root, trial, metric)} for options, trial in trials]
        best_options = _best(scores, metric, *MODELS)
        if recipe.method(arm).searched_separately:
            fixed = recipe.arms[arm].get("each", {})
            of_each = {model: {**fixed.get(model, {}), **_best(scores, metric, model)} for model in MODELS}
            best_options = {"each": of_each}
        results[arm] = {"best": best_options, "tried": scores}
        with writing(path):
            write_json(path, results)
    best = {arm: {**options, **results.get(arm, {}).get("best", {})} for arm, options in recipe.arms.items()}
    return dataclasses.replace(recipe, arms=best)


def scores_of(root: Path, trial: Trial, metric: Metric) -> dict[str, float | None]:
    """Final metric of each of a trial's models; None for a run that diverged."""
    return {
        model: read_json(root / run.folder / "summary.json")["metrics"][name][metric.name]
        if is_finished(root, run.folder)
        else None
        for model, (run, name) in trial.models.items()
    }


def _best(scores: Sequence[Mapping[str, Any]], metric: Metric, *models: Model) -> dict[str, Any]:
    """The options with which these models are best, together."""
    best = max(scores, key=lambda score: sum(metric.goodness(score[model]) for model in models))
    return dict(best["options"])


def in_words(options: Mapping[str, Any]) -> str:
    """Options as the folders and results of the search name them."""
    parts = [
        f"{key} {{{in_words(value)}}}" if isinstance(value, Mapping) else f"{key}={value}"
        for key, value in options.items()
    ]
    return ",".join(parts)
