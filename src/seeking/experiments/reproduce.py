"""Run a recipe: every arm with every seed, side by side, going on where it was."""

import contextlib
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import platform
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from seeking.data import DataConfig, ImageData, load
from seeking.errors import RunError, SeekingError
from seeking.experiments.recipe import Recipe, Run, Trial
from seeking.experiments.results import gather, summarise
from seeking.experiments.rivals import Distilled, Sandwich
from seeking.experiments.run import RunConfig, models, trainer, weights_map
from seeking.files import MOST_OPTIONS, read_json, whole
from seeking.processes import this_process
from seeking.report.experiment import page
from seeking.training import RunFolder, Trainer, count_flops
from seeking.training.stopping import SAVED_BY_SIGTERM
from seeking.training.trainer import Row
from seeking.transfer import embed
from seeking.weights_files import load_fitting, load_weights

FORMAT = 1
"""Of the files that an experiment writes; those of another one are not read."""

SEARCH_SEED = 1_000_000
"""Of the runs of the search, apart from those of the arms."""
VALIDATION = 0.1
"""Share of the training images on which the search judges."""

Tell = Callable[[str, Row], None]
"""Told of every row of every run, with the run's folder."""


def ratios(recipe: Recipe, data: ImageData) -> dict[tuple[str, str], float]:
    """For each pair, the larger model's FLOPs over the smaller one's."""
    found = {}
    for pair in recipe.pairs:
        made = models(recipe.config(pair), len(data.classes), data.shape[0])
        batch = torch.zeros(2, *data.shape)
        flops = [count_flops(model, lambda model, x: model(x).sum(), batch)[1] for model in made.values()]
        found[pair] = flops[1] / flops[0]
    return found


def claim(recipe: Recipe, root: Path) -> None:
    """Make a folder this recipe's, or find that it is.

    Raises:
        SeekingError: it is another recipe's, another scale's or another version's, or holds something else.
    """
    ours = {"format": FORMAT, **json.loads(json.dumps(dataclasses.asdict(recipe)))}
    path = root / "recipe.json"
    if not path.exists():
        if root.exists() and any(root.iterdir()):
            raise SeekingError(f"{root} holds something else than a recipe's results; name another output folder")
        root.mkdir(parents=True, exist_ok=True)
        with whole(path) as beside:
            beside.write_text(json.dumps(ours, indent=1), encoding="utf-8")
        return
    theirs = read_json(path, MOST_OPTIONS)
    differ = [key for key in ours if key not in ("title", "seeds") and ours[key] != theirs.get(key)]
    if differ:
        lines = [f"  {key}: {theirs.get(key)!r} there, {ours[key]!r} now" for key in differ]
        raise SeekingError(
            "\n".join([f"{root} holds the results of another recipe:", *lines, "Name another output folder"])
        )


def tuned(recipe: Recipe, root: Path, ratio: Mapping[tuple[str, str], float], jobs: int, tell: Tell) -> Recipe:
    """The recipe with, for every arm, the options that the search finds best.

    Every combination is tried with one seed on held-out training images, at the middle budget; what counts is the mean
    accuracy of the two models.
    """
    path = root / "search.json"
    found = read_json(path, MOST_OPTIONS) if path.exists() else {}
    budget = sorted(recipe.budgets)[len(recipe.budgets) // 2] if recipe.budgets else None
    pair = recipe.pairs[0]
    tried: dict[str, list[tuple[dict[str, Any], Trial]]] = {}
    for arm in recipe.arms:
        space = recipe.search[arm]
        if arm in found or not space:
            continue
        tried[arm] = []
        for values in itertools.product(*space.values()):
            options = dict(zip(space, values, strict=True))
            trial = recipe.trial(arm, pair, budget, SEARCH_SEED, ratio[pair], **options, validation=VALIDATION)
            named = ",".join(f"{key}={value}" for key, value in options.items())
            tried[arm].append((options, _below(trial, f"search/{named}")))
    run_all([trial for each in tried.values() for _, trial in each], root, jobs, tell)
    for arm, each in tried.items():
        scores = [(statistic(root, trial), options) for options, trial in each]
        best = max(scores, key=lambda score: score[0])
        found[arm] = {"best": best[1], "tried": [{**options, "accuracy": score} for score, options in scores]}
        with whole(path) as beside:
            beside.write_text(json.dumps(found, indent=1), encoding="utf-8")
    arms = {arm: {**own, **found.get(arm, {}).get("best", {})} for arm, own in recipe.arms.items()}
    return dataclasses.replace(recipe, arms=arms)


def statistic(root: Path, trial: Trial) -> float:
    """Mean accuracy of a trial's two models at its end."""
    found = [
        read_json(root / run.folder / "summary.json", MOST_OPTIONS)["metrics"][name]["accuracy"]
        for run, name in trial.models.values()
    ]
    return float(sum(found) / len(found))


def _below(trial: Trial, folder: str) -> Trial:
    """The same trial with its runs in another folder."""
    moved = {
        run.folder: dataclasses.replace(
            run, folder=f"{folder}/{run.folder}", after=f"{folder}/{run.after}" if run.after else None
        )
        for run in trial.runs
    }
    by_model = {model: (moved[run.folder], name) for model, (run, name) in trial.models.items()}
    return dataclasses.replace(trial, runs=tuple(moved.values()), models=by_model)


def run_all(
    trials: Iterable[Trial], root: Path, jobs: int, tell: Tell, after_each: Callable[[], None] = lambda: None
) -> None:
    """Make all runs that are not done yet, so many at a time; shared ones once.

    Raises:
        RunError: one has failed, or its process has died; the others are saved.
    """
    waiting = {run.folder: run for trial in trials for run in trial.runs if not done(root, run.folder)}
    if not waiting:
        return
    tell("", {"kind": "plan", "epochs": sum(run.config.epochs for run in waiting.values()), "text": "starting"})
    if jobs == 1:
        for run in waiting.values():
            perform(run, root, functools.partial(tell, run.folder))
            after_each()
        return
    context = multiprocessing.get_context("spawn")
    queue: Any = context.SimpleQueue()
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(jobs, context, _begin, (queue, threads))
    with _ended(pool):
        under_way: dict[Future[None], Run] = {}
        while waiting or under_way:
            for folder, run in list(waiting.items()):
                if len(under_way) < jobs and (run.after is None or done(root, run.after)):
                    under_way[pool.submit(_work, run, root)] = waiting.pop(folder)
            ended, _ = wait(under_way, timeout=0.5, return_when=FIRST_COMPLETED)
            while not queue.empty():
                tell(*queue.get())
            for future in ended:
                run = under_way.pop(future)
                try:
                    future.result()
                except BrokenProcessPool as error:
                    raise RunError(
                        f"a process has died while {run.folder} ran, maybe for want of memory; the same command goes "
                        "on, with --jobs 1 if need be"
                    ) from error
                after_each()


@contextlib.contextmanager
def _ended(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Inside, SIGTERM ends the program; however it ends, the pool's runs save and end before it does."""

    def heard(number: int, frame: FrameType | None) -> None:
        raise SystemExit(SAVED_BY_SIGTERM)

    before = signal.signal(signal.SIGTERM, heard)
    try:
        yield
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        signal.signal(signal.SIGTERM, before)


_queue: Any = None


def _begin(queue: Any, threads: int) -> None:
    global _queue
    _queue = queue
    torch.set_num_threads(threads)


def _work(run: Run, root: Path) -> None:
    perform(run, root, lambda row: _queue.put((run.folder, row)) if row["kind"] in ("start", "eval") else None)


def done(root: Path, folder: str) -> bool:
    """Whether a run has come to its end before."""
    return (root / folder / "summary.json").exists()


@functools.lru_cache(maxsize=2)
def data_of(config: DataConfig) -> ImageData:
    """A data set, loaded once for all runs of this process."""
    return load(config)


def data_config(config: RunConfig) -> DataConfig:
    """The part of a run's options that says which data it has."""
    return DataConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(DataConfig)})


def perform(run: Run, root: Path, listener: Callable[[Row], None]) -> None:
    """Train one run to its end, from its beginning or from where it was."""
    config = run.config
    this_process(config.device)
    data = data_of(data_config(config))
    made = models(config, len(data.classes), data.shape[0], config.seed)
    kind: Callable[..., Trainer] = Trainer
    role = run.kind
    before = root / run.after if run.after else None
    if role == "grown":
        assert before
        load_weights(made["base"], before / "base.last.safetensors")
        _embed(config, made, data)
        role = "motivated"
    elif role == "distilled":
        assert before
        load_weights(made["motivated"], before / "base.last.safetensors")
        knobs = {name: run.knobs[name] for name in ("weight", "temperature")}
        kind = functools.partial(Distilled, teacher=made["motivated"], **knobs)
        role = "base"
    else:
        if role == "sandwich":
            kind, role = Sandwich, "pair"
        if before:
            for name in made if role == "pair" else (role,):
                load_fitting(made[name], before / f"{name}.last.safetensors")
        if run.knobs["start"] == "neutral":
            _embed(config, made, data)
    folder = RunFolder(root / run.folder, resume=True)
    trainer(config, data, role, folder, [listener], made=made, kind=kind).fit()


def _embed(config: RunConfig, made: Mapping[str, nn.Module], data: ImageData) -> None:
    """Put the base into the motivated model, whose extra capacity becomes neutral."""
    found = weights_map(config, made["base"], made["motivated"], torch.zeros(2, *data.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        embed(made["base"], made["motivated"], found)


def reproduce(recipe: Recipe, root: Path, seeds: Sequence[int], jobs: int | None, tell: Tell) -> str:
    """Run a recipe in a folder, or what is left of it; tables and figures are written whenever a seed is done.

    Args:
        recipe: what to run.
        root: the folder; runs go below it, with ``results.json``, ``results.md`` and the figures.
        seeds: of the arms.
        jobs: runs at a time.
        tell: told of every row of every run.

    Returns:
        The tables, in Markdown.

    Raises:
        SeekingError: the data are not the recipe's kind, or the folder holds something else.
        RunError: a run has failed; the same call goes on.
    """
    process = this_process(recipe.config(recipe.pairs[0]).device)
    if process.num_processes > 1:
        raise SeekingError("seeking reproduce starts its own processes; start it as one, with --jobs N")
    if jobs is None:
        jobs = (os.cpu_count() or 1) if process.device.type == "cpu" else 4
    if jobs < 1:
        raise SeekingError(f"jobs is {jobs}; it must be 1 or more")
    data = data_of(data_config(recipe.config(recipe.pairs[0])))
    if recipe.classes is not None and len(data.classes) != recipe.classes:
        raise SeekingError(
            f"recipe {recipe.name} is for data of {recipe.classes} classes, {data.name} has {len(data.classes)}"
        )
    claim(recipe, root)
    ratio = ratios(recipe, data)
    ready = tuned(recipe, root, ratio, jobs, tell)
    trials = [*ready.trials(seeds, ratio)]
    told = 0

    def written(everything: bool = False) -> None:
        nonlocal told
        whole_seeds = [
            seed
            for seed in seeds
            if all(done(root, run.folder) for trial in trials if trial.seed == seed for run in trial.runs)
        ]
        if len(whole_seeds) > told or everything:
            told = len(whole_seeds)
            write(ready, [trial for trial in trials if trial.seed in whole_seeds], root, process.device)

    run_all(trials, root, jobs, tell, written)
    written(everything=True)
    return (root / "results.md").read_text(encoding="utf-8")


def write(recipe: Recipe, trials: Sequence[Trial], root: Path, device: torch.device) -> None:
    """Write tables and figures of these trials."""
    from seeking.report.plots import draw_arms, draw_evidence, draw_pareto

    records = gather(recipe, trials, root)
    rows = summarise(recipe, records)
    hours = sum(read_json(path, MOST_OPTIONS)["seconds"]["total"] for path in root.rglob("summary.json")) / 3600
    seeds = sorted({trial.seed for trial in trials})
    machine = f"{os.cpu_count()} cores ({platform.machine()})"
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    about = {
        "recipe": f"{recipe.name}, scale {recipe.scale}",
        "options": " ".join(f"{key}={value}" for key, value in recipe.options.items()),
        "seeds": f"{len(seeds)} ({', '.join(map(str, seeds))})",
        "machine": machine,
        "hours of training, the search included": f"{hours:.2f}",
        "versions": f"seeking {version('seeking')}, torch {torch.__version__}",
    }
    if (root / "search.json").exists():
        found = read_json(root / "search.json", MOST_OPTIONS)
        best = "; ".join(
            f"{arm}: {', '.join(f'{key} {value}' for key, value in each['best'].items())}"
            for arm, each in found.items()
        )
        about["found by the search"] = best
    content = {"format": FORMAT, "about": about, "rows": rows, "records": records}
    for name, text in (
        ("results.json", json.dumps(content, indent=1) + "\n"),
        ("results.md", page(recipe.title, recipe.reference, rows, about)),
    ):
        with whole(root / name) as beside:
            beside.write_text(text, encoding="utf-8")
    for pair in recipe.pairs:
        ours = [row for row in rows if tuple(row["pair"]) == pair]
        name, title = "-".join(pair), f"{recipe.title}: {pair[0]} in {pair[1]}"
        if recipe.budgets:
            draw_pareto(ours, root / f"{name}-pareto.png", title)
        else:
            draw_arms(ours, recipe.reference, root / f"{name}.png", title)
            if any(row["evidence"] for row in ours):
                draw_evidence(ours, root / f"{name}-condition.png", title)
