"""The ``seeking`` command.

Exit codes: 0 success (for ``verify``: exact, for ``show``: intact), 1 the run or the verification failed, 2 wrong usage
or invalid input, 75 stopped by SIGTERM and saved, 130 interrupted.
"""

import argparse
import contextlib
import dataclasses
import os
import runpy
import shlex
import signal
import sys

if __name__ == "__main__":  # As torchrun starts it; the other imports are for where Ctrl-C is caught.
    runpy.run_module("seeking", run_name="__main__", alter_sys=True)
    raise SystemExit

import time
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch
import tyro
from accelerate.utils import broadcast
from rich.markdown import Markdown
from torch import nn

from seeking.checkpointing.manifest import Kind
from seeking.checkpointing.run_dir import RunFolder
from seeking.checkpointing.weights import load_weights, save_weights
from seeking.commands import (
    Compare,
    Embed,
    Extract,
    Map,
    Reproduce,
    RunOptions,
    Show,
    Train,
    TransferOptions,
    Verify,
)
from seeking.data import ImageData, load
from seeking.distributed.processes import this_process
from seeking.errors import NotContainedError, RunError, RunWarning, SeekingError, unknown
from seeking.experiments.compare import ARMS, compare, summarize
from seeking.experiments.recipe import read
from seeking.experiments.reproduce import reproduce
from seeking.experiments.run import check_names, models, trainer, weights_map
from seeking.files import read_yaml
from seeking.initialization import embed, extract
from seeking.matching import MatchWarning
from seeking.models import input_shape
from seeking.options import flags, flags_of_run, recipe_file, registry
from seeking.report.folder import describe
from seeking.report.output import PrintableConsole, ignore_output_errors, plain_errors, printable
from seeking.report.progress import many_runs, progress
from seeking.report.tables import comparison_rows, cost_rows, cost_sentence, markdown, run_rows, split_rows, terminal
from seeking.training.interrupts import EXIT_SAVED
from seeking.verification import verify
from seeking.weights_map import WeightsMap

MAIN_PROCESS = os.environ.get("RANK", "0") == "0"
"""Whether this process prints and writes files; torchrun and accelerate start several processes."""

console = PrintableConsole(quiet=not MAIN_PROCESS, markup=False)


def _print(text: object, file: TextIO | None = None) -> None:
    print(printable(text), file=file)


def train_command(config: Train) -> int:
    """Run ``seeking train``."""
    from seeking.report.plots import draw  # matplotlib is slow to import.

    title = f"{config.base} in {config.motivated}"
    output, folder = _folder(config, f"{config.base}-{config.motivated}")
    check_names(config)
    data = load(config)
    _announce(config, data, output)
    with progress(console) as start:
        result = trainer(config, data, "pair", folder, [start(title)]).fit()
    if MAIN_PROCESS:
        try:
            with folder:
                folder.write_file("curves.png", lambda path: draw({"pair": [result]}, path, f"{title}, {data.name}"))
        except OSError as error:
            raise RunError(f"{output / 'curves.png'}: cannot be written ({error.strerror})") from error
    console.print(terminal(run_rows(result), title))
    console.print(
        f"{cost_sentence(result.cost.report())} Training took {result.seconds['total']:.0f} s.", highlight=False
    )
    console.print(f"Weights, map, metrics and summary: {output}\nFigure: {output / 'curves.png'}", highlight=False)
    return 0


def compare_command(config: Compare) -> int:
    """Run ``seeking compare``."""
    from seeking.report.plots import draw

    if config.seeds < 1:
        raise SeekingError(f"seeds is {config.seeds}; it must be 1 or more")
    title = f"{config.base} in {config.motivated}"
    output, folder = _folder(config, "compare", "comparison")
    if config.resume and (output / "metrics.jsonl").exists():
        raise SeekingError(f"{output} holds a single run; resume it with seeking train --resume")
    check_names(config)
    data = load(config)
    _announce(config, data, output)
    dry_run = dataclasses.replace(config, on_nonfinite="stop")  # Rollback needs a folder.
    for arm in ARMS:  # Validate before anything is written.
        trainer(dry_run, data, arm)
    if MAIN_PROCESS and folder.holds_run:
        folder.lock()
        folder.read_manifest()
        folder.write_json("config.json", dataclasses.asdict(config))
    elif MAIN_PROCESS:
        folder.create(dataclasses.asdict(config), None)
    this_process(config.device).wait_for_everyone()  # The other processes read the folder next.
    with progress(console) as start:
        seeds = range(config.seed, config.seed + config.seeds)
        results = compare(config, data, seeds, output, config.resume, start)
    summary = summarize(results)
    tables = comparison_rows(summary), cost_rows(summary)
    sentence = cost_sentence(summary["pair"])
    if MAIN_PROCESS:
        folder.write_json("comparison.json", summary)
        page = "\n".join([*map(markdown, tables), sentence])
        folder.write_file("comparison.md", lambda path: path.write_text(f"{page}\n", encoding="utf-8"))
        folder.write_file("comparison.png", lambda path: draw(results, path, f"{title}, {data.name}"))
    console.print(terminal(tables[0], f"{title}, {data.name}"), terminal(tables[1]))
    console.print(sentence, highlight=False)
    console.print(f"Runs and table: {output}\nFigure: {output / 'comparison.png'}", highlight=False)
    return 0


def reproduce_command(config: Reproduce) -> int:
    """Run ``seeking reproduce``."""
    changes = dict(config.set)
    changes |= {key: value for key in ("data", "device") if (value := getattr(config, key)) is not None}
    recipe = read(config.recipe, config.scale, changes, config.source)
    seeds = recipe.seeds if config.seeds is None else config.seeds
    if seeds < 1:
        raise SeekingError(f"seeds is {seeds}; it must be 1 or more")
    output = config.output or Path("runs") / f"{recipe.name}-{recipe.scale}"
    with many_runs(console) as listener:
        page = reproduce(recipe, output, range(seeds), config.jobs, listener, _command(config, changes))
    console.print(Markdown(page))
    console.print(f"Runs, tables and figures: {output}", highlight=False)
    return 0


def _command(config: Reproduce, changes: Mapping[str, Any]) -> str:
    """The command line that reproduces the results, without the output folder."""
    words = ["seeking", "reproduce", config.recipe, "--scale", config.scale]
    words += ["--seeds", str(config.seeds)] if config.seeds is not None else []
    words += ["--source", config.source] if config.source else []
    words += ["--set", *(f"{key}={value}" for key, value in changes.items())] if changes else []
    return shlex.join(words)


def show_command(config: Show) -> int:
    """Run ``seeking show``."""
    text, intact = describe(config.run)
    _print(text)
    return 0 if intact else 1


def _folder(config: RunOptions, name: str, kind: Kind = "run") -> tuple[Path, RunFolder]:
    """The output folder; by default, one with this name and the time, the same in every process."""
    if config.resume and not config.output:
        raise SeekingError("resume needs the run folder: --output FOLDER")
    now = int(broadcast(torch.tensor(int(time.time()), device=this_process(config.device).device)))
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    output = config.output or Path("runs") / f"{name}-{stamp}"
    return output, RunFolder(output, config.overwrite, config.resume, kind)


def _announce(config: RunOptions, data: ImageData, output: Path) -> None:
    channels, height, width = data.shape
    console.print(terminal(split_rows(data.splits)))
    console.print(
        f"{config.base} in {config.motivated} on {data.name}: {len(data.train):,} training and {len(data.test):,} test "
        f"images of {channels}×{height}×{width}, {len(data.classes)} classes, {data.location}\n"
        f"condition {config.condition}, {config.epochs} epochs, batch size {config.batch_size}, writing to {output}",
        highlight=False,
    )


def map_command(config: Map) -> int:
    """Run ``seeking map``."""
    both = models(config, config.num_classes, config.in_chans)
    derived = weights_map(config, both["base"], both["motivated"])
    _print(derived.details() if config.details else derived)
    if config.save:
        if config.save.exists():
            try:
                WeightsMap.load(config.save)
            except SeekingError as error:
                raise SeekingError(f"{config.save} exists and is no weights map; name another file") from error
        try:
            derived.save(config.save)
        except OSError as error:
            raise SeekingError(f"{config.save}: cannot be written ({error.strerror})") from error
        _print(f"saved to {config.save}")
    return 0


def verify_command(config: Verify) -> int:
    """Run ``seeking verify``."""
    both = models(config, config.num_classes, config.in_chans)
    if config.image_size is not None and config.image_size < 1:
        raise SeekingError(f"image_size is {config.image_size}; it must be 1 or more")
    try:
        derived = WeightsMap.load(config.map) if config.map else weights_map(config, both["base"], both["motivated"])
    except NotContainedError as error:
        _print(f"{config.base} in {config.motivated}: {error}\nthe base is NOT a sub-network of the motivated model")
        return 1
    shape = input_shape(both["base"], config.image_size, config.in_chans)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    verdict = verify(both["base"], both["motivated"], derived, images, tolerance=config.tolerance)
    _print(f"{config.base} in {config.motivated}, input {list(images.shape)}: {verdict.reason}")
    if not verdict:
        _print("the base is NOT a sub-network of the motivated model under this map")
    return 0 if verdict else 1


def extract_command(config: Extract) -> int:
    """Run ``seeking extract``."""
    both, derived = _load_for_transfer(config, "motivated")
    extract(both["motivated"], both["base"], derived)
    save_weights(both["base"], config.output)
    _print(f"{config.base} extracted from {config.motivated}: {config.output}")
    return 0


def embed_command(config: Embed) -> int:
    """Run ``seeking embed``."""
    both, derived = _load_for_transfer(config, "base")
    embed(both["base"], both["motivated"], derived, extra=config.extra)
    save_weights(both["motivated"], config.output)
    _print(f"{config.motivated} initialized from {config.base}, extra capacity {config.extra}: {config.output}")
    return 0


def _load_for_transfer(config: TransferOptions, source: str) -> tuple[dict[str, nn.Module], WeightsMap]:
    if config.output.exists() and not config.overwrite:
        raise SeekingError(f"{config.output} exists; name another file, or give --overwrite")
    both = models(config, config.num_classes, config.in_chans, config.seed)
    load_weights(both[source], config.weights)
    return both, WeightsMap.load(config.map) if config.map else weights_map(config, both["base"], both["motivated"])


COMMANDS: dict[str, tuple[type[Any], Any]] = {
    "train": (Train, train_command),
    "compare": (Compare, compare_command),
    "reproduce": (Reproduce, reproduce_command),
    "show": (Show, show_command),
    "map": (Map, map_command),
    "verify": (Verify, verify_command),
    "extract": (Extract, extract_command),
    "embed": (Embed, embed_command),
}


@ignore_output_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if not args or args[0] in ("-h", "--help"):
        print(__doc__.splitlines()[0].replace("``", "") + "\n")
        print("Motivated training: one training run, two models.\n\ncommands:")
        for name, (command, _) in COMMANDS.items():
            print(f"  seeking {name:11}{(command.__doc__ or '').splitlines()[0]}")
        print("\nseeking COMMAND --help lists a command's options.")
        return 0 if args else 2
    try:
        if args[0] == "--version":
            print(version("seeking"))
            return 0
        if args[0] not in COMMANDS:
            raise unknown("command", args[0], COMMANDS)
        name, *args = args
        command, run = COMMANDS[name]
        early_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        early_parser.add_argument("--config", type=Path, nargs="?")
        early_parser.add_argument("--recipe", nargs="?")
        early_parser.add_argument("--output", type=Path, nargs="?")
        early_parser.add_argument("--resume", action="store_true")
        file = early_parser.parse_known_args(args)[0].config
        if file and issubclass(command, RunOptions):
            args = flags(read_yaml(file), file, command) + args
        recipe = early_parser.parse_known_args(args)[0].recipe
        if recipe and issubclass(command, RunOptions):
            file = recipe_file(recipe)
            options_of_recipe = read_yaml(file)
            if "recipe" in options_of_recipe:
                raise SeekingError(f"{file}: a recipe cannot start from another recipe; give its options instead")
            args = flags(options_of_recipe, file, command) + args
        options = early_parser.parse_known_args(args)[0]
        if options.resume and options.output and issubclass(command, RunOptions):
            args = flags_of_run(options.output, command) + args
        with plain_errors():  # They quote values.
            config = tyro.cli(
                command,
                prog=f"seeking {name}",
                args=args,
                registry=registry,
                config=(tyro.conf.PositionalMetavarFromFieldName,),
            )
        with warnings.catch_warnings():
            warnings.simplefilter("always", MatchWarning)
            warnings.simplefilter("always", RunWarning)
            default_showwarning = warnings.showwarning
            warnings.showwarning = lambda message, category, *where, **kwargs: (
                _print(f"seeking: {message}", file=sys.stderr)
                if issubclass(category, MatchWarning | RunWarning)
                else default_showwarning(message, category, *where, **kwargs)
            )
            code: int = run(config)
        return code
    except (SeekingError, argparse.ArgumentError) as error:
        _print(f"seeking: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        _print(f"seeking: {error}", file=sys.stderr)
        return 1
    except SystemExit as stopped:
        if stopped.code == EXIT_SAVED:  # Schedulers may send SIGTERM again while the program ends.
            with contextlib.suppress(ValueError):  # Outside the main thread.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    except KeyboardInterrupt:
        print("seeking: interrupted", file=sys.stderr)
        return 130
