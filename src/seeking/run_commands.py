"""The commands that train, and what shows their results."""

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.markdown import Markdown

from seeking.checkpointing.made import Made
from seeking.checkpointing.manifest import Kind, kind_of
from seeking.checkpointing.run_dir import RunFolder
from seeking.choices import MODELS
from seeking.commands import Analyze, Compare, Reproduce, RunOptions, Show, Train
from seeking.distributed.processes import from_first_process, this_process
from seeking.errors import RunError, SeekingError
from seeking.experiments.analyze import analyze
from seeking.experiments.compare import check, compare, summarize
from seeking.experiments.recipe import read
from seeking.experiments.reproduce import reproduce
from seeking.experiments.run import arguments, check_names, trainer
from seeking.experiments.start import check_start
from seeking.experiments.tasks import TaskData, task
from seeking.files import atomic_write, check_new, new_file, reason, write_json
from seeking.option_types import check_least
from seeking.options import options_of_run
from seeking.report.analysis import checkpoint_rows, end_rows, line_rows
from seeking.report.folder import describe, is_run_folder
from seeking.report.output import PrintableConsole, is_main_process, make_console, print_text
from seeking.report.progress import RunProgress, many_runs
from seeking.report.runs import find_runs, runs_table
from seeking.report.tables import comparison_rows, cost_rows, cost_sentence, markdown, run_rows, split_rows, terminal
from seeking.report.trackers import check_trackers


def train_command(config: Train) -> int:
    """Run ``seeking train``."""
    console, title = make_console(), f"{config.base} in {config.motivated}"
    data = _checked_data(config)
    with output_folder(config, f"{config.base}-{config.motivated}") as (output, folder):
        _announce(console, config, data, output, folder.holds_run)
        with RunProgress(console, f"{title}, {data.name}", data.unit) as progress:
            result = trainer(config, data, "pair", folder, progress=progress).fit()
        console.print(terminal(run_rows(result), title))
        console.tell(f"{cost_sentence(result.cost.report())} Training took {result.seconds['total']:.0f} s.")
        console.tell(f"Weights, map, metrics and summary: {output}\nFigure: {output / 'curves.png'}")
    return 0


def compare_command(config: Compare) -> int:
    """Run ``seeking compare``.

    Raises:
        SeekingError: options, models and data do not go together, or the folder holds something else.
    """
    from seeking.report.plots import draw

    check_least("seeds", config.seeds)
    console, title = make_console(), f"{config.base} in {config.motivated}"
    if config.resume and config.output and (config.output / "metrics.jsonl").exists():
        raise SeekingError(f"{config.output} holds a single run; resume it with seeking train --resume")
    data = _checked_data(config)
    with output_folder(config, "compare", "comparison") as (output, folder):
        _announce(console, config, data, output, folder.holds_run)
        seeds = range(config.seed, config.seed + config.seeds)
        check(config, data, seeds, output if folder.holds_run else None)  # Before anything is written.
        if is_main_process() and folder.holds_run:
            folder.lock()
            folder.read_manifest()
            folder.write_json("config.json", dataclasses.asdict(config))
        elif is_main_process():
            folder.create(dataclasses.asdict(config), None)
        this_process(config.device).wait_for_everyone()  # The other processes read the folder next.
        results = compare(config, data, seeds, output, config.resume, lambda run: RunProgress(console, run, data.unit))
        metric = task(config.task).metric(config.loss)
        summary = summarize(results, metric)
        tables = comparison_rows(summary, metric), cost_rows(summary)
        sentence = cost_sentence(summary["pair"])
        console.print(terminal(tables[0], f"{title}, {data.name}"), terminal(tables[1]))
        console.tell(sentence)
        if is_main_process():
            page = "\n".join([*map(markdown, tables), sentence])
            try:
                folder.write_json("comparison.json", summary)
                folder.write_file("comparison.md", lambda path: path.write_text(f"{page}\n", encoding="utf-8"))
                folder.write_file("comparison.png", lambda path: draw(results, path, f"{title}, {data.name}"))
            except OSError as error:
                raise RunError(f"{output}: the comparison cannot be written ({reason(error)})") from error
        console.tell(f"Runs and table: {output}\nFigure: {output / 'comparison.png'}")
    return 0


def reproduce_command(config: Reproduce) -> int:
    """Run ``seeking reproduce``.

    Raises:
        SeekingError: there is no such recipe, or its options do not go together.
        RunError: trials have failed.
    """
    changes = dict(config.set)
    changes |= {key: value for key in ("data", "device") if (value := getattr(config, key)) is not None}
    recipe = read(config.recipe, config.scale, changes, config.source)
    seeds = recipe.seeds if config.seeds is None else config.seeds
    check_least("seeds", seeds)
    if config.arms == ():
        raise SeekingError("arms has no name; name some, or leave it out to run all")
    output = config.output or Path("runs") / f"{recipe.name}-{recipe.scale}"
    console = make_console()
    with many_runs(console) as listener:
        page = reproduce(
            recipe, output, range(seeds), config.jobs, listener, _command(config, changes), arms=config.arms
        )
    console.print(Markdown(page))
    console.tell(f"Runs, tables and figures: {output}")
    return 0


def _command(config: Reproduce, changes: Mapping[str, Any]) -> str:
    """The command line that reproduces the results, without the output folder."""
    words = ["seeking", "reproduce", config.recipe, "--scale", config.scale]
    words += ["--arms", *config.arms] if config.arms else []
    words += ["--seeds", str(config.seeds)] if config.seeds is not None else []
    words += ["--source", config.source] if config.source else []
    words += ["--set", *(f"{key}={value}" for key, value in changes.items())] if changes else []
    return shlex.join(words)


def analyze_command(config: Analyze) -> int:
    """Run ``seeking analyze``.

    Raises:
        SeekingError: this is not the folder of a run, or the output folder holds something else.
        RunError: the results cannot be written.
    """
    from seeking.report.plots import draw_analysis

    names = {"analysis.json", "analysis.png"}
    output = config.output
    if output and output.exists() and (not output.is_dir() or {path.name for path in output.iterdir()} - names):
        raise SeekingError(f"{output} holds something else than an analysis; name another folder")
    if output:
        check_new(output / "analysis.json", "file")
    given = {name: value for name in (*MODELS, "data", "device") if (value := getattr(config, name)) is not None}
    run_options = options_of_run(config.run, Compare, [f"--{name}={value}" for name, value in given.items()])
    counts = {name: getattr(config, name) for name in ("samples", "steps", "iterations")}
    console = make_console()
    with console.status("analyzing") as status:
        result = analyze(config.run, run_options, against=config.against, notify=status.update, **counts)
    console.print(terminal(checkpoint_rows(result), str(config.run)), terminal(end_rows(result)))
    if config.against:
        console.print(terminal(line_rows(result), f"from the base of {config.run} to that of {config.against}"))
    if output:
        with new_file(output / "analysis.json"):
            write_json(output / "analysis.json", result)
        with new_file(output / "analysis.png"), atomic_write(output / "analysis.png") as temporary:
            draw_analysis(result, temporary, str(config.run))
        console.tell(f"Analysis and figure: {output}")
    return 0


def show_command(config: Show) -> int:
    """Run ``seeking show``."""
    if not is_run_folder(config.run):
        print_runs(config.run)
        return 0
    text, intact = describe(config.run)
    print_text(text)
    if kind_of(config.run) == "comparison" and any(find_runs(config.run)):
        print_runs(config.run)
    return 0 if intact else 1


def print_runs(folder: Path) -> None:
    """Print the runs in a folder.

    Raises:
        SeekingError: the folder cannot be read, or there is no run in it.
    """
    common, rows = runs_table(folder)
    print_text(f"in common: {common or 'nothing'}")
    make_console().print(terminal(rows))


def _checked_data(config: RunOptions) -> TaskData:
    """The data, after all that can be refused without them.

    Raises:
        SeekingError: options do not go together, the output folder holds something else or cannot be written, or the
            data cannot be read.
    """
    if config.resume and not config.output:
        raise SeekingError("resume needs the run folder: --output FOLDER")
    folder = RunFolder(config.output, config.overwrite, config.resume) if config.output else None
    if is_main_process():  # Which alone writes.
        check_new(folder.path if folder else _dated("run", 0), "folder")
    check_trackers(config.tracker)
    check_names(config)
    if not (folder and folder.holds_run):  # A resumed run needs the weights no more.
        check_start(config.start_from, config.pretrained, arguments(config, {}), config.shared_from, config.extra)
    return task(config.task).load(config, 1, config.loss)


@contextlib.contextmanager
def output_folder(config: RunOptions, name: str, kind: Kind = "run") -> Iterator[tuple[Path, RunFolder]]:
    """The output folder; by default, a new one with this name and the time, the same in every process.

    The new one is there at once, so that no other program takes it as well; it goes again if nothing is written to it.

    Raises:
        SeekingError: it holds something else, or cannot be written.
    """
    made = Made()

    def new_folder() -> Path:
        now = int(time.time())
        while not made.make_new_folder(_dated(name, now)):  # Of a run that began within the same second.
            now += 1
        return _dated(name, now)

    this_process(config.device)
    try:
        output = config.output or from_first_process(new_folder)
        with contextlib.closing(RunFolder(output, config.overwrite, config.resume, kind)) as folder:
            yield output, folder
    finally:
        made.take_back()


def _dated(name: str, seconds: int) -> Path:
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(seconds))}"


def _announce(console: PrintableConsole, config: RunOptions, data: TaskData, output: Path, resumed: bool) -> None:
    unit, count = ("epoch", config.epochs) if config.max_steps is None else ("step", config.max_steps)
    length = f"{count} {unit}{'s' * (count != 1)}"
    conditions = f"condition {config.condition}"
    if config.base_condition != "always":
        conditions = f"base_condition {config.base_condition}, {conditions}"
    if config.recipe is not None:
        start = f"recipe {config.recipe}"
    else:
        start = "options of the run that is resumed" if resumed else "no recipe"
    if config.shared_from and (config.pretrained or config.start_from):
        start += f", shared weights from the {config.shared_from} model"
    console.print(terminal(split_rows(data.splits, data.unit)))
    console.tell(
        f"{config.base} in {config.motivated} on {data.name}: {data.describe()}\n"
        f"{start}; {conditions}, {length}, batch size {config.batch_size}, writing to {output}"
    )
