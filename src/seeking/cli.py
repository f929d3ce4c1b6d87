"""The ``seeking`` command.

Exit codes: 0 success (for ``verify``: exact, for ``show``: intact), 1 the run or the verification failed, 2 wrong usage
or invalid input, 75 stopped by SIGTERM or SIGHUP (a run is saved before), 130 interrupted.
"""

if __name__ == "__main__":  # First, so that signals are handled before anything large is imported.
    import runpy

    runpy.run_module("seeking", run_name="__main__")  # Ends the program.

import argparse
import contextlib
import functools
import pkgutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from seeking.commands import (
    Analyze,
    Compare,
    Embed,
    Extract,
    Map,
    Reproduce,
    RunOptions,
    Show,
    Train,
    Verify,
)
from seeking.errors import EXIT_INTERRUPTED, EXIT_SAVED, MatchWarning, RunError, RunWarning, SeekingError, unknown
from seeking.files import user_path
from seeking.flag_names import check_flags, with_flags
from seeking.option_parsing import parse_options, plain_switches
from seeking.options import (
    DEFAULT_RECIPE,
    flags,
    flags_of_run,
    naming_default_recipe,
    options_of_file,
    recipe_file,
    recipe_options,
)
from seeking.report.output import check_output, ignore_output_errors, plain_errors, print_text

COMMANDS: dict[str, tuple[type[Any], str]] = {
    "train": (Train, "seeking.run_commands:train_command"),
    "compare": (Compare, "seeking.run_commands:compare_command"),
    "reproduce": (Reproduce, "seeking.run_commands:reproduce_command"),
    "show": (Show, "seeking.run_commands:show_command"),
    "analyze": (Analyze, "seeking.run_commands:analyze_command"),
    "map": (Map, "seeking.model_commands:map_command"),
    "verify": (Verify, "seeking.model_commands:verify_command"),
    "extract": (Extract, "seeking.model_commands:extract_command"),
    "embed": (Embed, "seeking.model_commands:embed_command"),
}
"""The options of each command, and the function that runs it, imported only then: help needs no PyTorch."""


def flags_of_files(args: list[str], command: type[Any]) -> tuple[list[str], dict[str, Any]]:
    """The flags of the files that these name, which come before them: the resumed run, the recipe, the options file.

    Returns:
        Those of the files, and the options of the default recipe if the run starts from it and nobody has asked for it.

    Raises:
        SeekingError: there are several options files or recipes, or one of them cannot be read or names another.
    """
    early_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early_parser.add_argument("--config", type=user_path, nargs="?", action="append", default=[])
    early_parser.add_argument("--recipe", nargs="?", action="append", default=[])
    early_parser.add_argument("--condition", nargs="?", action="append", default=[])
    early_parser.add_argument("--base-condition", "--base_condition", nargs="?", action="append", default=[])
    early_parser.add_argument("--output", type=user_path, nargs="?")
    early_parser.add_argument("--resume", action="store_true")
    of_files, of_file = list[str](), dict[str, Any]()
    early = early_parser.parse_known_args(args)[0]
    for name, values in (("config", early.config), ("recipe", early.recipe)):
        if len(values) > 1:
            raise SeekingError(
                f"--{name} is given {len(values)} times ({', '.join(map(str, values))}); join them into one file"
            )
    if early.config and (file := early.config[0]):
        of_file = options_of_file(file)
        if of_file.get("config") is not None:
            raise SeekingError(f"{file}: a file of options cannot name another one in config; give its options instead")
        of_files = flags(of_file, file, command)
    given = early_parser.parse_known_args([*of_files, *args])[0]  # Of the file, and the flags that override it.

    def of_recipe(recipe: str) -> dict[str, Any]:
        return {key: value for key, value in recipe_options(recipe).items() if key not in of_file}

    if given.recipe and (recipe := given.recipe[-1]) not in (None, "None"):
        of_files = [*flags(of_recipe(recipe), recipe_file(recipe), command), *of_files]
    folder = early_parser.parse_known_args([*of_files, *args])[0]
    of_run = flags_of_run(folder.output, command) if folder.resume and folder.output else []
    steps_said = given.condition or given.base_condition  # The user says who steps when.
    # A folder without a record of options begins like a new one, since its first command line did.
    if of_run or steps_said or given.recipe or "recipe" in of_file:
        return [*of_run, *of_files], {}
    of_default = of_recipe(DEFAULT_RECIPE)
    of_files = [*flags(of_default, recipe_file(DEFAULT_RECIPE), command), *of_files]
    return ["--recipe", DEFAULT_RECIPE, *of_files], of_default


def _print_help() -> None:
    print(__doc__.splitlines()[0].replace("``", "") + "\n")
    print("Motivated training: one training run, two models.\n\ncommands:")
    for name, (command, _) in COMMANDS.items():
        print(f"  seeking {name:11}{(command.__doc__ or '').splitlines()[0]}")
    print("\nseeking COMMAND --help lists a command's options.")


@contextlib.contextmanager
def _telling_warnings(told: Callable[[object], str]) -> Iterator[None]:
    """Inside, warnings of this library are lines on standard error, each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", MatchWarning)
        warnings.simplefilter("always", RunWarning)
        default_showwarning = warnings.showwarning
        warnings.showwarning = lambda message, category, *where, **kwargs: (
            print_text(f"seeking: {told(message)}", file=sys.stderr)
            if issubclass(category, MatchWarning | RunWarning)
            else default_showwarning(message, category, *where, **kwargs)
        )
        yield


@ignore_output_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if not args or args[0] in ("-h", "--help"):
        _print_help()
        return 0 if args else 2
    told: Callable[[object], str] = str
    of_default: dict[str, Any] = {}
    try:
        if args[0] == "--version":
            print(version("seeking"))
            return 0
        if args[0] not in COMMANDS:
            raise unknown("command", args[0], COMMANDS)
        name, *args = args
        command, function = COMMANDS[name]
        args = plain_switches(args, command)
        check_flags(args, command)
        of_files: list[str] = []
        if issubclass(command, RunOptions):
            of_files, of_default = flags_of_files(args, command)
        told = functools.partial(with_flags, command=command)
        with plain_errors():  # They quote values.
            config = parse_options(command, args, f"seeking {name}", of_files)
        with _telling_warnings(told):
            code: int = pkgutil.resolve_name(function)(config)
            if not issubclass(command, RunOptions | Reproduce):  # Their results are in files.
                check_output()
        return code
    except (SeekingError, argparse.ArgumentError) as error:
        print_text(f"seeking: {told(naming_default_recipe(error, of_default))}", file=sys.stderr)
        return 2
    except RunError as error:
        print_text(f"seeking: {told(error)}", file=sys.stderr)
        return 1
    except SystemExit as stopped:
        if stopped.code == EXIT_SAVED:  # Schedulers may send SIGTERM again while the program ends.
            with contextlib.suppress(ValueError):  # Outside the main thread.
                for number in (signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
        raise
    except KeyboardInterrupt:
        print("seeking: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
