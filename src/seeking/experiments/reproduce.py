"""Run a recipe: every arm with every seed; unfinished experiments are resumed."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from seeking.distributed.processes import cores, this_process
from seeking.errors import SeekingError, naming, unknown
from seeking.experiments.claim import claim
from seeking.experiments.parallel import RunListener, check_trials, data_config, load_cached, raise_failures, run_all
from seeking.experiments.recipe import Recipe
from seeking.experiments.result_files import ResultFiles
from seeking.experiments.run import check_names, models
from seeking.experiments.search import search
from seeking.experiments.tasks import TaskData
from seeking.option_types import check_least
from seeking.training import count_flops
from seeking.weights_map import tensors_in


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


def reproduce(
    recipe: Recipe,
    root: Path,
    seeds: Sequence[int],
    jobs: int | None,
    listener: RunListener,
    command: str = "",
    *,
    arms: Sequence[str] | None = None,
) -> str:
    """Run a recipe, or the rest of it; tables and figures are updated whenever a seed is finished.

    Args:
        recipe: the recipe.
        root: output folder, for the runs, ``results.json``, ``results.md`` and the figures.
        seeds: seeds of the arms. Finished seeds in the folder are included in the results.
        jobs: runs in parallel.
        listener: called with every row of every run.
        command: the command line, to be recorded.
        arms: names of the arms to run; all if not given. Finished runs of others in the folder are in the
            results, too.

    Returns:
        The tables, in Markdown.

    Raises:
        SeekingError: the recipe has no such arm, the data have the wrong number of classes, or the folder holds
            something else.
        RunError: some runs failed; the same call resumes them.
    """
    for arm in arms or ():
        if arm not in recipe.arms:
            raise unknown(f"arm of recipe {recipe.name}", arm, recipe.arms)
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
    check_trials(recipe.trials(seeds[:1], ratio))  # Before anything is written; other seeds differ in it alone.
    with claim(recipe, root):
        if jobs > 1:  # Each process loads its own.
            del data
            load_cached.cache_clear()
        chosen = recipe.arms.keys() if arms is None else {*arms}
        searched = search(recipe, root, ratio, jobs, listener, chosen)
        earlier = {int(path.name[4:]) for path in root.glob("arms/*/*/seed*") if path.name[4:].isdigit()}
        trials = [*searched.trials([*seeds, *sorted(earlier - set(seeds))], ratio)]
        requested = [trial for trial in trials if trial.seed in seeds and trial.arm in chosen]
        files = ResultFiles(searched, root, trials, requested, process.device, command)
        raise_failures(run_all(requested, root, jobs, listener, files.update))
        files.update()
        return (root / "results.md").read_text(encoding="utf-8")
