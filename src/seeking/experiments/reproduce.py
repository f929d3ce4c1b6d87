"""Run a recipe: every arm with every seed, side by side, going on where it was."""

import contextlib
import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from seeking.data import ImageData
from seeking.distributed.processes import cores, this_process
from seeking.errors import DivergedError, RunError, SeekingError
from seeking.experiments.parallel import Tell, data_config, data_of, done, planned, run_all
from seeking.experiments.recipe import Recipe, Trial
from seeking.experiments.results import MODELS, gather, summarise
from seeking.experiments.run import models
from seeking.files import MAX_OPTIONS_BYTES, atomic_write, read_json, write_json
from seeking.report.experiment import page
from seeking.training import count_flops
from seeking.training.config import CHANGEABLE_ON_RESUME
from seeking.training.precision import resolve_precision

FORMAT = 2
"""Of the files that an experiment writes; those of another one are not read."""

SEARCH_SEED = 1_000_000
"""Of the runs of the search, apart from those of the arms."""
VALIDATION = 0.1
"""Share of the training images on which the search judges."""


def ratios(recipe: Recipe, data: ImageData) -> dict[tuple[str, str], float]:
    """For each pair, the larger model's FLOPs over the smaller one's."""
    by_pair = {}
    for pair in recipe.pairs:
        both = models(recipe.config(pair), len(data.classes), data.shape[0])
        batch = torch.zeros(2, *data.shape)
        flops = [count_flops(model, lambda model, x: model(x).sum(), batch)[1] for model in both.values()]
        by_pair[pair] = flops[1] / flops[0]
    return by_pair


def claim(recipe: Recipe, root: Path) -> None:
    """Make a folder this recipe's, or find that it is.

    Raises:
        SeekingError: it is another recipe's, another scale's or another version's, or holds something else.
    """
    current = {"format": FORMAT, **json.loads(json.dumps(dataclasses.asdict(recipe)))}
    path = root / "recipe.json"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            if any(not one.name.endswith(".writing") for one in root.iterdir()):
                raise SeekingError(f"{root} holds something else than a recipe's results; name another output folder")
            write_json(path, current)
            return
    except OSError as error:
        raise SeekingError(f"{root}: cannot be used as an output folder ({error.strerror})") from error
    recorded = read_json(path, MAX_OPTIONS_BYTES)
    for content in (current, recorded):
        for name in CHANGEABLE_ON_RESUME - {"epochs"}:
            if isinstance(content.get("options"), dict):
                content["options"].pop(name, None)
    differ = [key for key in current if key not in ("title", "seeds", "jobs") and current[key] != recorded.get(key)]
    if differ:
        lines = [f"  {key}: {recorded.get(key)!r} there, {current[key]!r} now" for key in differ]
        raise SeekingError(
            "\n".join([f"{root} holds the results of another recipe:", *lines, "Name another output folder"])
        )


def tuned(recipe: Recipe, root: Path, ratio: Mapping[tuple[str, str], float], jobs: int, tell: Tell) -> Recipe:
    """The recipe with, for every arm, the options that the search finds best.

    Every candidate is tried with one seed on held-out training images, with the recipe's first pair and the middle
    budget. What counts is the mean accuracy of the two models; of models that are trained alone, each has its own best.
    """
    path = root / "search.json"
    results = read_json(path, MAX_OPTIONS_BYTES) if path.exists() else {}
    budget = sorted(recipe.budgets)[(len(recipe.budgets) - 1) // 2] if recipe.budgets else None
    pair = recipe.pairs[0]

    def candidate(arm: str, options: dict[str, Any]) -> Trial:
        under = f"search/{_named(options)}"
        return recipe.trial(arm, pair, budget, SEARCH_SEED, ratio[pair], under, **options, validation=VALIDATION)

    tried = {
        arm: [(options, candidate(arm, options)) for options in recipe.candidates(arm)]
        for arm, space in recipe.search.items()
        if space and arm not in results
    }
    failed = run_all([trial for each in tried.values() for _, trial in each], root, jobs, tell)
    _raise({folder: error for folder, error in failed.items() if not isinstance(error, DivergedError)})
    for arm, each in tried.items():
        scores = [{"options": options, **accuracies(root, trial)} for options, trial in each]

        def best(*models: str, scores: list[dict[str, Any]] = scores) -> Any:
            return max(scores, key=lambda one: sum(one[model] for model in models))["options"]

        chosen = best(*MODELS)
        if recipe.method(arm).searched_apart:  # Trained alone, each has its own.
            own = recipe.arms[arm].get("each", {})
            chosen = {"each": {model: {**own.get(model, {}), **best(model)} for model in MODELS}}
        results[arm] = {"best": chosen, "tried": scores}
        try:
            write_json(path, results)
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror})") from error
    arms = {arm: {**own, **results.get(arm, {}).get("best", {})} for arm, own in recipe.arms.items()}
    return dataclasses.replace(recipe, arms=arms)


def accuracies(root: Path, trial: Trial) -> dict[str, float]:
    """The accuracies of a trial's two models at its end; below all others where a run has diverged."""
    return {
        model: read_json(root / run.folder / "summary.json", MAX_OPTIONS_BYTES)["metrics"][name]["accuracy"]
        if done(root, run.folder)
        else -1.0
        for model, (run, name) in trial.models.items()
    }


def _raise(failed: Mapping[str, Exception]) -> None:
    if failed:
        raise RunError("\n".join(f"{folder}: {error}" for folder, error in failed.items()))


def reproduce(recipe: Recipe, root: Path, seeds: Sequence[int], jobs: int | None, tell: Tell, command: str = "") -> str:
    """Run a recipe in a folder, or what is left of it; tables and figures are written whenever a seed is done.

    Args:
        recipe: what to run.
        root: the folder; runs go below it, with ``results.json``, ``results.md`` and the figures.
        seeds: of the arms. Others that are there count, too.
        jobs: runs at a time.
        tell: told of every row of every run.
        command: for the record.

    Returns:
        The tables, in Markdown.

    Raises:
        SeekingError: the data are not the recipe's kind, or the folder holds something else.
        RunError: runs have failed; the same call goes on.
    """
    config = recipe.config(recipe.pairs[0])
    process = this_process(config.device)
    if process.num_processes > 1:
        raise SeekingError("seeking reproduce starts its own processes; start it as one, with --jobs N")
    jobs = recipe.jobs if jobs is None else jobs
    if jobs is None:
        jobs = cores() if process.device.type == "cpu" else 4
    if jobs < 1:
        raise SeekingError(f"jobs is {jobs}; it must be 1 or more")
    data = data_of(data_config(config), jobs)
    if recipe.classes is not None and len(data.classes) != recipe.classes:
        raise SeekingError(
            f"recipe {recipe.name} is for data of {recipe.classes} classes, {data.name} has {len(data.classes)}"
        )
    ratio = ratios(recipe, data)
    planned(recipe.trials(seeds, ratio))  # What can be refused is refused before anything is written.
    claim(recipe, root)
    if jobs > 1:  # The runs have their own.
        del data
        data_of.cache_clear()
    ready = tuned(recipe, root, ratio, jobs, tell)
    earlier = {int(path.name[4:]) for path in root.glob("arms/*/*/seed*") if path.name[4:].isdigit()}
    trials = [*ready.trials([*seeds, *sorted(earlier - set(seeds))], ratio)]
    asked = [trial for trial in trials if trial.seed in seeds]
    records: dict[int, list[dict[str, Any]]] = {}

    def written() -> None:
        for seed in sorted({trial.seed for trial in trials} - records.keys()):
            of_seed = [trial for trial in trials if trial.seed == seed]
            if all(done(root, run.folder) for trial in of_seed for run in trial.runs):
                records[seed] = [gather(trial, root) for trial in of_seed]
                finished = [record for each in sorted(records) for record in records[each]]
                try:
                    write(ready, finished, root, process.device, command)
                except OSError as error:
                    raise RunError(f"{root}: tables and figures could not be written ({error})") from error

    _raise(run_all(asked, root, jobs, tell, written))
    written()
    return (root / "results.md").read_text(encoding="utf-8")


def write(recipe: Recipe, records: Sequence[dict[str, Any]], root: Path, device: torch.device, command: str) -> None:
    """Write tables and figures of these records of trials."""
    from seeking.report.plots import draw_arms, draw_by_flops, draw_evidence

    rows = summarise(recipe, records)
    hours = sum(read_json(path, MAX_OPTIONS_BYTES)["seconds"]["total"] for path in root.rglob("summary.json")) / 3600
    seeds = sorted({record["seed"] for record in records})
    config = recipe.config(recipe.pairs[0])
    about = {
        "command": f"`{command}`",
        "options": " ".join(f"{key}={value}" for key, value in recipe.options.items()),
        "precision": resolve_precision(config.precision, device),
        "seeds": f"{len(seeds)} ({', '.join(map(str, seeds))})",
        "machine": machine(device),
        "hours of training steps, summed over all runs": f"{hours:.2f}",
        "versions": f"seeking {version('seeking')}, torch {torch.__version__}",
    }
    if (root / "search.json").exists():
        results = read_json(root / "search.json", MAX_OPTIONS_BYTES)
        about["found by the search"] = "; ".join(f"{arm}: {_named(each['best'])}" for arm, each in results.items())
    write_json(root / "results.json", {"format": FORMAT, "about": about, "rows": rows, "records": records})
    with atomic_write(root / "results.md") as temporary:
        temporary.write_text(page(recipe.title, recipe.reference, rows, about), encoding="utf-8")
    for pair in recipe.pairs:
        of_pair = [row for row in rows if tuple(row["pair"]) == pair]
        name, title = "-".join(pair), f"{recipe.title}: {pair[0]} in {pair[1]}"
        draw_by_flops(of_pair, root / f"{name}-flops.png", title)
        if not recipe.budgets:
            draw_arms(of_pair, recipe.reference, root / f"{name}.png", title)
        if any(row["evidence"] for row in of_pair):
            draw_evidence(of_pair, root / f"{name}-condition.png", title)


def machine(device: torch.device) -> str:
    """What the runs ran on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return f"{os.cpu_count()} cores, {next(line.split(': ')[1] for line in lines if 'model name' in line)}"
    return f"{os.cpu_count()} cores, {platform.machine()}"


def _named(options: Mapping[str, Any]) -> str:
    parts = [
        f"{key} {{{_named(value)}}}" if isinstance(value, Mapping) else f"{key}={value}"
        for key, value in options.items()
    ]
    return ",".join(parts)
