"""The files of an experiment's results: tables, figures, and what they are drawn from."""

import contextlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from seeking.errors import RunError
from seeking.experiments.claim import FORMAT
from seeking.experiments.parallel import is_finished
from seeking.experiments.parity import fronts
from seeking.experiments.recipe import Recipe, Trial
from seeking.experiments.results import gather, metric_of, summarize
from seeking.experiments.search import SEARCH_FILE, in_words
from seeking.files import atomic_write, read_json, reason, write_json
from seeking.report.experiment import page
from seeking.training.precision import resolve_precision


@dataclass
class ResultFiles:
    """The results of an experiment so far, in files.

    Attributes:
        recipe: with the options that the search has found.
        root: output folder.
        trials: of the seeds that are being run, and of those that the folder has besides.
        requested: those that are being run. A seed is in the results when all of its requested trials are finished,
            with whatever else is.
        device: that runs use.
        command: the command line.
        records: of finished trials, by seed.
    """

    recipe: Recipe
    root: Path
    trials: Sequence[Trial]
    requested: Sequence[Trial]
    device: torch.device
    command: str
    records: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def update(self) -> None:
        """Write them anew if a seed has been finished since.

        Raises:
            RunError: they cannot be written.
        """
        before = len(self.records)
        for seed in {trial.seed for trial in self.trials} - self.records.keys():
            of_seed = [trial for trial in self.trials if trial.seed == seed]
            finished = [trial for trial in of_seed if all(is_finished(self.root, run.folder) for run in trial.runs)]
            if finished and all(trial in finished for trial in of_seed if trial in self.requested):
                self.records[seed] = [gather(trial, self.root, metric_of(self.recipe)) for trial in finished]
        if len(self.records) > before:
            try:
                self._write()
            except OSError as error:
                raise RunError(f"{self.root}: cannot write tables and figures ({reason(error)})") from error

    def _write(self) -> None:
        """Write the records, with facts about how they were made."""
        hours = sum(read_json(path)["seconds"]["total"] for path in self.root.rglob("summary.json")) / 3600
        seeds = sorted(self.records)
        records = [record for seed in seeds for record in self.records[seed]]
        precision = self.recipe.config(self.recipe.pairs[0]).precision
        about = {
            "command": f"`{self.command}`",
            "options": " ".join(f"{key}={value}" for key, value in self.recipe.merged({}).items()),
            "precision": resolve_precision(precision, self.device),
            "seeds": f"{len(seeds)} ({', '.join(map(str, seeds))})",
            "machine": machine(self.device),
            "hours of training steps, summed over all runs": f"{hours:.2f}",
            "versions": f"seeking {version('seeking')}, torch {torch.__version__}",
        }
        finished = {record["arm"] for record in records}
        if missing := [arm for arm in self.recipe.arms if arm not in finished]:
            about["without the arms"] = "; ".join(missing)
        if (self.root / SEARCH_FILE).exists():
            found = read_json(self.root / SEARCH_FILE)
            about["found by the search"] = "; ".join(f"{arm}: {in_words(each['best'])}" for arm, each in found.items())
        render(self.recipe, records, about, self.root)


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
        with atomic_write(root / f"{name}-flops.png") as path:
            draw_by_flops(pair_rows, path, title, metric)
        if not recipe.budgets:
            with atomic_write(root / f"{name}.png") as path:
                draw_arms(pair_rows, recipe.reference, path, title, metric)
        if any(len(front["arms"]) > 1 for front in of_pair):
            with atomic_write(root / f"{name}-front.png") as path:
                draw_front(of_pair, pair_rows, recipe.reference, path, title, metric)
        if any(row["evidence"] for row in pair_rows):
            with atomic_write(root / f"{name}-condition.png") as path:
                draw_evidence(pair_rows, path, title)


def machine(device: torch.device) -> str:
    """Name of the hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return f"{os.cpu_count()} cores, {next(line.split(': ')[1] for line in lines if 'model name' in line)}"
    return f"{os.cpu_count()} cores, {platform.machine()}"
