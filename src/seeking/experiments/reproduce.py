"""Run a recipe: every arm with every seed; unfinished experiments are resumed."""

import contextlib
import dataclasses
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from seeking.checkpointing.run_files import LOCK
from seeking.choices import MODELS
from seeking.distributed.processes import cores, this_process
from seeking.errors import DivergedError, RunError, SeekingError, naming
from seeking.experiments.config import RunConfig
from seeking.experiments.parallel import (
    RunListener,
    data_config,
    is_finished,
    load_cached,
    run_all,
    runs_by_folder,
)
from seeking.experiments.parity import fronts
from seeking.experiments.recipe import Recipe, Trial
from seeking.experiments.results import gather, summarize
from seeking.experiments.run import check_names, models
from seeking.experiments.tasks import TaskData, task
from seeking.files import atomic_write, read_json, reason, write_json, writing
from seeking.option_types import check_least
from seeking.report.experiment import page
from seeking.report.metric import Metric
from seeking.training import count_flops
from seeking.training.precision import resolve_precision
from seeking.weights_map import tensors_in

FORMAT = 2
"""Format version of the files of an experiment; files of another version are not read."""

CHANGEABLE = RunConfig.changeable() - {"epochs"}
"""Options that may change when an experiment is resumed."""

SEARCH_SEED = 1_000_000
"""Seed of the runs of the search; the arms use other seeds."""
SEARCH_VALIDATION = 0.1
"""Share of the training data that the search holds out and evaluates on."""


def ratios(recipe: Recipe, data: TaskData) -> dict[tuple[str, str], float]:
    """For each pair, the FLOPs of the larger model over those of the smaller one."""
    by_pair = {}
    for pair in recipe.pairs:
        both = models(recipe.config(pair), data.model_arguments)
        flops = [count_flops(model, _sum_of_outputs, data.example)[1] for model in both.values()]
        by_pair[pair] = flops[1] / flops[0]
    return by_pair


def _sum_of_outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    return torch.stack([tensor.float().sum() for tensor in tensors_in(model(inputs))]).sum()


def metric_of(recipe: Recipe) -> Metric:
    """The metric that a recipe's arms are compared by."""
    config = recipe.config(recipe.pairs[0])
    return task(config.task).metric(config.loss)


@contextlib.contextmanager
def claim(recipe: Recipe, root: Path) -> Iterator[None]:
    """Create the folder of an experiment, or check that it belongs to this recipe, and hold it for this program.

    A folder in which no run has begun becomes this recipe's. The recipe may have got more arms and pairs since.

    Raises:
        SeekingError: it belongs to another recipe, scale or format version, holds other files, or another program
            holds it.
    """
    path = root / "recipe.json"
    lock = FileLock(root / LOCK)
    try:
        root.mkdir(parents=True, exist_ok=True)
        of_others = "format" not in read_json(path) if path.exists() else _holds_runs(root)
        if of_others:
            raise SeekingError(f"{root} does not hold the results of a recipe; name another output folder")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise SeekingError(
            f"{root}: another program is running an experiment in this folder; wait for it, or name another one"
        ) from error
    except OSError as error:
        raise SeekingError(f"{root}: cannot be used as an output folder ({reason(error)})") from error
    try:
        _record(recipe, root, path)
        yield
    finally:
        lock.release()


def _holds_runs(root: Path) -> bool:
    """Whether a folder holds anything but what is there before the first run."""
    names = {path.name for path in root.iterdir()} - {"recipe.json", LOCK}
    return not all(name.endswith(".writing") for name in names)


def _record(recipe: Recipe, root: Path, path: Path) -> None:
    """Write down whose the folder is, or check that it is this recipe's."""
    current = {"format": FORMAT, **json.loads(json.dumps(dataclasses.asdict(recipe)))}
    try:
        if not _holds_runs(root):
            write_json(path, current)
            return
    except OSError as error:
        raise SeekingError(f"{root}: cannot be used as an output folder ({reason(error)})") from error
    recorded = read_json(path)
    before, now = ({**content, "options": _fixed(content.get("options"))} for content in (recorded, current))
    differing = [key for key in now if key not in ("title", "seeds", "jobs") and now[key] != before.get(key)]
    if not differing:
        return
    if not (recorded.get("format") == FORMAT and _continued(recorded, recipe)):
        lines = [line for key in differing for line in _difference(key, before.get(key), now[key])]
        raise SeekingError(
            "\n".join([f"{root} holds the results of another recipe:", *lines, "Name another output folder"])
        )
    with writing(path):
        write_json(path, current)


def _difference(key: str, before: Any, now: Any) -> list[str]:
    """What differs, and of two mappings each key that does."""
    if before in (None, {}) and now in (None, {}):  # Options of a pair or a search that an added arm does not have.
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return [line for name in keys for line in _difference(f"{key}: {name}", before.get(name), now.get(name))]
    return [f"  {key}: {before!r} in the folder, {now!r} now"]


def _fixed(options: Any) -> Any:
    """Options without those that may change."""
    return {k: v for k, v in options.items() if k not in CHANGEABLE} if isinstance(options, dict) else options


def _continued(recorded: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a recipe, perhaps written in another way, has all the arms of the recorded one, with the same runs."""
    fields: dict[str, Any] = {name: recorded.get(name) for name in Recipe.__dataclass_fields__}
    try:
        fields |= {"pairs": tuple(map(tuple, recorded["pairs"])), "budgets": tuple(recorded["budgets"])}
        (common, *plans), (common_now, *plans_now) = _plan(Recipe(**fields)), _plan(recipe)
    except (AttributeError, LookupError, SeekingError, SystemExit, TypeError, ValueError):
        return False
    if common != common_now:
        return False
    return all(plan.items() <= now.items() for plan, now in zip(plans, plans_now, strict=True))


def _plan(recipe: Recipe) -> tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What a recipe comes to: what its arms share, its runs but for options that may change, and what is searched."""
    runs = runs_by_folder(recipe.trials([0], dict.fromkeys(recipe.pairs, 2.0)))
    fixed = {
        folder: {name: value for name, value in run.config.recorded().items() if name not in CHANGEABLE}
        for folder, run in runs.items()
    }
    stages = {folder: (run.method, run.after, dict(run.settings)) for folder, run in runs.items()}
    searched = {arm: recipe.candidates(arm) for arm in recipe.search}
    of_search = (recipe.pairs[0], recipe.budgets) if any(recipe.search.values()) else None
    return (recipe.name, recipe.scale, recipe.reference, recipe.classes, of_search), fixed, stages, searched


def _check(trials: Iterable[Trial]) -> None:
    """Check the options of these trials before the first one is trained.

    Raises:
        SeekingError: of a run, with its folder.
    """
    for run in runs_by_folder(trials).values():
        with naming(run.folder):
            check_names(run.config)


def search(
    recipe: Recipe, root: Path, ratio: Mapping[tuple[str, str], float], jobs: int, listener: RunListener
) -> Recipe:
    """Search the options of every arm; returns the recipe with the best ones.

    Every candidate is trained with one seed, on the first pair and the middle budget, and evaluated on held-out
    training data. The best candidate has the best mean metric of the two models. Models that are trained alone are
    searched separately.

    Raises:
        SeekingError: the options of a trial are not valid.
        RunError: a trial fails otherwise than by diverging, or the results cannot be written.
    """
    metric = metric_of(recipe)
    path = root / "search.json"
    results = read_json(path) if path.exists() else {}
    budget = sorted(recipe.budgets)[(len(recipe.budgets) - 1) // 2] if recipe.budgets else None
    pair = recipe.pairs[0]

    def candidate(arm: str, options: dict[str, Any]) -> Trial:
        parent = f"search/{_format(options)}"
        return recipe.trial(
            arm, pair, budget, SEARCH_SEED, ratio[pair], parent, **options, validation=SEARCH_VALIDATION
        )

    candidates = {
        arm: [(options, candidate(arm, options)) for options in recipe.candidates(arm)]
        for arm, grid in recipe.search.items()
        if grid and arm not in results
    }
    everything = [trial for trials in candidates.values() for _, trial in trials]
    _check(everything)
    failed = run_all(everything, root, jobs, listener)
    _raise_failures({folder: error for folder, error in failed.items() if not isinstance(error, DivergedError)})
    for arm, trials in candidates.items():
        scores = [{"options": options, **scores_of(root, trial, metric)} for options, trial in trials]

        def best(*models: str, scores: list[dict[str, Any]] = scores) -> Any:
            return max(scores, key=lambda score: sum(metric.goodness(score[model]) for model in models))["options"]

        best_options = best(*MODELS)
        if recipe.method(arm).searched_separately:
            fixed = recipe.arms[arm].get("each", {})
            best_options = {"each": {model: {**fixed.get(model, {}), **best(model)} for model in MODELS}}
        results[arm] = {"best": best_options, "tried": scores}
        with writing(path):
            write_json(path, results)
    arms = {arm: {**options, **results.get(arm, {}).get("best", {})} for arm, options in recipe.arms.items()}
    return dataclasses.replace(recipe, arms=arms)


def scores_of(root: Path, trial: Trial, metric: Metric) -> dict[str, float | None]:
    """Final metric of each of a trial's models; None for a run that diverged."""
    return {
        model: read_json(root / run.folder / "summary.json")["metrics"][name][metric.name]
        if is_finished(root, run.folder)
        else None
        for model, (run, name) in trial.models.items()
    }


def _raise_failures(failed: Mapping[str, Exception]) -> None:
    if failed:
        raise RunError("\n".join(f"{folder}: {error}" for folder, error in failed.items()))


def reproduce(
    recipe: Recipe, root: Path, seeds: Sequence[int], jobs: int | None, listener: RunListener, command: str = ""
) -> str:
    """Run a recipe, or the rest of it; tables and figures are updated whenever a seed is finished.

    Args:
        recipe: the recipe.
        root: output folder, for the runs, ``results.json``, ``results.md`` and the figures.
        seeds: seeds of the arms. Finished seeds in the folder are included in the results.
        jobs: runs in parallel.
        listener: called with every row of every run.
        command: the command line, to be recorded.

    Returns:
        The tables, in Markdown.

    Raises:
        SeekingError: the data have the wrong number of classes, or the folder holds something else.
        RunError: some runs failed; the same call resumes them.
    """
    config = recipe.config(recipe.pairs[0])
    process = this_process(config.device)
    if process.num_processes > 1:
        raise SeekingError("seeking reproduce starts its own processes; start it without a launcher, with --jobs N")
    jobs = recipe.jobs if jobs is None else jobs
    if jobs is None:
        jobs = cores() if process.device.type == "cpu" else 4
    check_least("jobs", jobs)
    for pair in recipe.pairs:
        with naming(" in ".join(pair)):
            check_names(recipe.config(pair))
    data = load_cached(data_config(config), jobs, config.loss)
    classes = data.model_arguments["num_classes"]
    if recipe.classes is not None and classes != recipe.classes:
        raise SeekingError(f"recipe {recipe.name} needs data with {recipe.classes} classes, {data.name} has {classes}")
    ratio = ratios(recipe, data)
    _check(recipe.trials(seeds[:1], ratio))  # Before anything is written; those of other seeds differ in it alone.
    with claim(recipe, root):
        if jobs > 1:  # Each process loads its own.
            del data
            load_cached.cache_clear()
        searched = search(recipe, root, ratio, jobs, listener)
        earlier = {int(path.name[4:]) for path in root.glob("arms/*/*/seed*") if path.name[4:].isdigit()}
        trials = [*searched.trials([*seeds, *sorted(earlier - set(seeds))], ratio)]
        requested = [trial for trial in trials if trial.seed in seeds]
        records: dict[int, list[dict[str, Any]]] = {}

        def write_results() -> None:
            for seed in sorted({trial.seed for trial in trials} - records.keys()):
                of_seed = [trial for trial in trials if trial.seed == seed]
                finished = [trial for trial in of_seed if all(is_finished(root, run.folder) for run in trial.runs)]
                if finished and (finished == of_seed or seed not in seeds):  # An arm may have been added since.
                    records[seed] = [gather(trial, root, metric_of(recipe)) for trial in finished]
                    everything = [record for number in sorted(records) for record in records[number]]
                    try:
                        write(searched, everything, root, process.device, command)
                    except OSError as error:
                        raise RunError(f"{root}: cannot write tables and figures ({reason(error)})") from error

        _raise_failures(run_all(requested, root, jobs, listener, write_results))
        write_results()
        return (root / "results.md").read_text(encoding="utf-8")


def write(recipe: Recipe, records: Sequence[dict[str, Any]], root: Path, device: torch.device, command: str) -> None:
    """Write the tables and figures of these trials, with facts about how they were run."""
    hours = sum(read_json(path)["seconds"]["total"] for path in root.rglob("summary.json")) / 3600
    seeds = sorted({record["seed"] for record in records})
    config = recipe.config(recipe.pairs[0])
    about = {
        "command": f"`{command}`",
        "options": " ".join(f"{key}={value}" for key, value in recipe.merged({}).items()),
        "precision": resolve_precision(config.precision, device),
        "seeds": f"{len(seeds)} ({', '.join(map(str, seeds))})",
        "machine": machine(device),
        "hours of training steps, summed over all runs": f"{hours:.2f}",
        "versions": f"seeking {version('seeking')}, torch {torch.__version__}",
    }
    if (root / "search.json").exists():
        results = read_json(root / "search.json")
        about["found by the search"] = "; ".join(f"{arm}: {_format(result['best'])}" for arm, result in results.items())
    render(recipe, records, about, root)


def render(recipe: Recipe, records: Sequence[Mapping[str, Any]], about: Mapping[str, str], root: Path) -> None:
    """Write ``results.json``, ``results.md`` and the figures.

    Args:
        recipe: the recipe.
        records: of its finished trials, as ``gather`` returns them.
        about: facts about the runs, by name.
        root: output folder.
    """
    from seeking.report.plots import draw_arms, draw_by_flops, draw_evidence, draw_front

    metric = metric_of(recipe)
    rows = summarize(recipe, records, metric)
    parities = fronts(recipe, rows, metric)
    content = {"format": FORMAT, "about": about, "rows": rows, "fronts": parities, "records": records}
    write_json(root / "results.json", content)
    with atomic_write(root / "results.md") as temporary:
        temporary.write_text(page(recipe.title, recipe.reference, rows, about, metric, parities), encoding="utf-8")
    for pair in recipe.pairs:
        pair_rows = [row for row in rows if tuple(row["pair"]) == pair]
        if not pair_rows:  # The pair was added to finished seeds, and no arm of it is finished yet.
            continue
        of_pair = [front for front in parities if tuple(front["pair"]) == pair]
        name, title = "-".join(pair), f"{recipe.title}: {pair[0]} in {pair[1]}"
        draw_by_flops(pair_rows, root / f"{name}-flops.png", title, metric)
        if not recipe.budgets:
            draw_arms(pair_rows, recipe.reference, root / f"{name}.png", title, metric)
        if any(len(front["arms"]) > 1 for front in of_pair):
            draw_front(of_pair, pair_rows, recipe.reference, root / f"{name}-front.png", title, metric)
        if any(row["evidence"] for row in pair_rows):
            draw_evidence(pair_rows, root / f"{name}-condition.png", title)


def machine(device: torch.device) -> str:
    """Name of the hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return f"{os.cpu_count()} cores, {next(line.split(': ')[1] for line in lines if 'model name' in line)}"
    return f"{os.cpu_count()} cores, {platform.machine()}"


def _format(options: Mapping[str, Any]) -> str:
    parts = [
        f"{key} {{{_format(value)}}}" if isinstance(value, Mapping) else f"{key}={value}"
        for key, value in options.items()
    ]
    return ",".join(parts)
