"""Options from files, converted to command-line flags, so that both are parsed and validated in the same way."""

import collections.abc
import dataclasses
import json
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from seeking.choices import MODELS
from seeking.errors import DamagedError, SeekingError, unknown
from seeking.escapes import printable
from seeking.files import read_yaml, reason, user_path
from seeking.flag_names import name_of_other_tool
from seeking.option_parsing import parse_options
from seeking.option_types import GIVEN_ANEW, HARMLESS, REPEATED, marked, types_of

OF_ONE_RUN = frozenset({"config", "output", "overwrite", "resume"})
"""Options that say where a run is, and from what it was made."""

OLDER_RUNS = {"split_method": "random"}
"""Options that runs of older versions did not record, with the values that they had."""

RECIPES = Path(__file__).parent / "training" / "recipes"
"""Folder of the library's recipes of training."""

DEFAULT_RECIPE = "best"
"""The recipe that runs start from on the command line if neither a recipe is asked for nor who steps when is said."""

TEXT_ARGUMENTS = frozenset(
    {"act_layer", "attn_type", "global_pool", "norm_layer", "pad_type", "pool_type", "pos_embed", "rel_pos_type"}
    | {"rope_type", "stem_type", "weight_init"}
)
"""Constructor arguments that name a kind of layer, pooling or initialization."""

LOADING_WORDS = re.compile("pretrained|checkpoint|weights|load|path|file|dir|url|hub|cache|cfg")
"""Constructor arguments with one of these in their names may load a file, whatever their values are."""

Options = TypeVar("Options")

MAX_VALUES = 1000
"""Values of one option in a file."""


def flags(options: Mapping[str, Any], path: Path, command: type[Any]) -> list[str]:
    """Convert options to command-line flags.

    Args:
        options: values by name.
        path: file that they come from, for error messages.
        command: dataclass of the options.

    Raises:
        SeekingError: an option does not exist, or its value is not valid.
    """
    fields = {field.name: field for field in dataclasses.fields(command)}
    hints, repeated = types_of(command), marked(command, REPEATED)
    arguments = []
    for name, value in normalized(options, path).items():
        if name == "config" or (name == "recipe" and value is None):  # The recorded options of a run include them.
            continue
        if name not in fields:
            if here := name_of_other_tool(name, command):
                raise SeekingError(f"unknown option in {path} {name!r}; did you mean {here.replace('-', '_')}?")
            raise unknown(f"option in {path}", name, fields)
        if value is None and types.NoneType not in typing.get_args(hints[name]):
            raise SeekingError(f"{path}: {name} is null; give a value, or leave it out")
        flag = "--" + name.replace("_", "-")
        if hints[name] in (bool, bool | None):
            if value is None:
                continue
            if not isinstance(value, bool):
                raise SeekingError(f"{path}: {name} must be true or false, not {value!r}")
            arguments.append(flag if value else "--no-" + flag[2:])
            continue
        if isinstance(value, Mapping):
            values = [f"{k}={json.dumps(v, default=str)}" for k, v in value.items()]
        else:
            values = [str(item) for item in (value if isinstance(value, list) else [value])]
        if len(values) > MAX_VALUES:
            raise SeekingError(f"{path}: {name} has {len(values):,} values; at most {MAX_VALUES:,} are read")
        for text in values:
            if "\0" in text:
                raise SeekingError(f"{path}: {name} is {value!r}; a value cannot hold a null character")
            if text[:1] == "-" and not text[1:2].isdigit():  # It would be parsed as another option.
                raise SeekingError(f"{path}: {name} is {value!r}; a value cannot start with a dash")
        arguments += [word for value in values for word in (flag, value)] if name in repeated else [flag, *values]
    return arguments


def recipe_file(name: str, folder: Path = RECIPES) -> Path:
    """The file of a recipe: one of the library's by its name, or any YAML file.

    Args:
        name: name, or path: what has a dot or a slash in it.
        folder: of the library's recipes; by default, of those of training.

    Raises:
        SeekingError: the library has no recipe of this name.
    """
    if not isinstance(name, str):  # A file of options may hold anything.
        raise SeekingError(f"recipe is {name!r}; give the name of one recipe, or the path of a YAML file")
    packaged = {path.stem: path for path in folder.glob("*.yaml")}
    if name in packaged:
        return packaged[name]
    if not name or re.fullmatch(r"[\w-]+", name):
        if name and Path(name).is_file():
            raise SeekingError(f"{name} is a file, and no recipe of the library; give its path as ./{name}")
        raise unknown("recipe", name, packaged)
    return user_path(name)


def recipe_options(name: str) -> dict[str, Any]:
    """The options of a recipe, by its name or path.

    Raises:
        SeekingError: there is no such recipe, or it starts from another one or an options file.
    """
    path = recipe_file(name)
    options = options_of_file(path, OF_ONE_RUN | {"recipe"})
    if any(options.get(other) is not None for other in ("recipe", "config")):
        raise SeekingError(f"{path}: a recipe cannot start from another recipe or file; give its options instead")
    return {key: value for key, value in options.items() if key not in ("recipe", "config")}


def naming_default_recipe(error: object, of_default: Mapping[str, Any]) -> str:
    """What an error says, and where the options come from that it names and nobody has given.

    Args:
        error: an error, or its message.
        of_default: options of the default recipe, if the run starts from it without being asked to.
    """
    message = str(error)
    named = [
        f"{name} {value}"
        for name, value in of_default.items()
        if re.search(rf"\b{name} (is )?'?{re.escape(str(value))}(?![\w.,:]*\w)", message)
    ]
    if not named:
        return message
    return (
        f"{message}; {' and '.join(named)} {'is' if len(named) == 1 else 'are'} of the recipe {DEFAULT_RECIPE}, which "
        "is the default: give another one, such as --recipe paper, or a --condition"
    )


def options_of_file(path: Path, of_one_run: Set[str] = OF_ONE_RUN) -> dict[str, Any]:
    """The options in a file; of the recorded ones of a run, those that do not say where and from what it was made.

    Args:
        path: the file.
        of_one_run: the options that are left out of recorded ones.

    Raises:
        SeekingError: the file cannot be read, or gives an option twice.
    """
    options = normalized(read_yaml(path), path)
    if {"config", "resume"} <= options.keys():  # A run records all.
        return {key: value for key, value in options.items() if key not in of_one_run}
    return options


def flags_of_run(folder: Path, command: type[Any]) -> list[str]:
    """The recorded options of a run as flags, but for those that could execute code or load files.

    The run folder may be untrusted, so such options must be given on the command line again.
    """
    from seeking.checkpointing import run_files  # These import PyTorch, which help does without.
    from seeking.checkpointing.manifest import check_file

    path = folder / "config.json"
    try:
        if not run_files.is_run(folder):
            return []
        try:
            check_file(path)
        except DamagedError as error:
            instead = "the newest checkpoint or, of a comparison, of its first run"
            print(printable(f"seeking: {error}; the options are those of {instead}"), file=sys.stderr)
        options = normalized(run_files.read_options(folder), path)
        options = {**OLDER_RUNS, **options} if options else {}
        hints, harmless = types_of(command), marked(command, HARMLESS)
        of_several = {"seeds"} - hints.keys()  # A single run, such as one of a comparison, has none.
        left_out = marked(command, GIVEN_ANEW) | of_several
        taken = {
            name: value
            for name, value in options.items()
            if name not in left_out
            and (name not in hints or _is_harmless(name, value, hints[name], text=name in harmless))
        }
        return flags(taken, path, command)
    except OSError as error:
        raise SeekingError(f"{folder}: cannot be read ({reason(error)})") from error
    except SeekingError as error:
        print(printable(f"seeking: {error}; give the options of the run again"), file=sys.stderr)
        return []


def options_of_run(folder: Path, command: type[Options], more: Sequence[str]) -> Options:
    """The recorded options of a run, as far as they may be taken.

    Args:
        folder: the run folder.
        command: dataclass of the options.
        more: flags that override them.

    Raises:
        SeekingError: this is not a run folder, or its options cannot be read; why has been printed.
    """
    from seeking.checkpointing import run_files  # Imports PyTorch, which help does without.

    arguments = [*flags_of_run(folder, command), *more]
    given = {argument.partition("=")[0] for argument in arguments}
    if left_out := [name for name in MODELS if f"--{name}" not in given]:
        recorded = run_files.read_options(folder) if run_files.is_run(folder) else {}
        if not recorded.keys() >= {*left_out}:
            raise SeekingError(
                f"{folder}: not the folder of a run of seeking train, whose models and data are recorded"
            )
        raise SeekingError(
            f"{folder}: models that are loaded from elsewhere are not taken from a run folder, which may be a "
            f"stranger's; if you trust it, add {' '.join(f'--{name}={recorded[name]}' for name in left_out)}"
        )
    return parse_options(command, arguments, "seeking")


def normalized(options: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Options under the names of the dataclass: with ``_`` for ``-``.

    Raises:
        SeekingError: two of them have one name.
    """
    names = collections.Counter(str(key).replace("-", "_") for key in options)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise SeekingError(f"{path}: {twice[0]} is given twice, with - and with _")
    return {str(key).replace("-", "_"): value for key, value in options.items()}


def _is_harmless(option: str, value: Any, hint: Any, text: bool) -> bool:
    """Whether an option of a stranger, or one that is marked as harmless text, cannot execute or load anything."""
    if _holds_numbers_or_words(hint):
        return True
    if option in ("condition", "base_condition"):
        from seeking.conditions import parse

        try:
            parse(str(value), imports=False)
        except SeekingError:
            return False
    if option in ("base", "motivated"):
        return re.fullmatch(r"\w[\w.-]*", str(value)) is not None  # Without a colon, nothing is loaded from elsewhere.
    if option.endswith("_kwargs"):
        return isinstance(value, Mapping) and all(_is_harmless_argument(*item) for item in value.items())
    if text and typing.get_origin(hint) is tuple:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return text and isinstance(value, str | None)


def _holds_numbers_or_words(hint: Any) -> bool:
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return True
    if inner:
        return typing.get_origin(hint) in (tuple, types.UnionType, Union) and all(map(_holds_numbers_or_words, inner))
    return hint in (bool, int, float, types.NoneType, ...)


def _is_harmless_argument(name: str, value: Any) -> bool:
    words = name.lower().replace("drop_path", "")
    if not (name.isascii() and name.isidentifier()) or LOADING_WORDS.search(words):
        return False
    values = value if isinstance(value, list) else [value]
    return all(
        isinstance(each, int | float | None)
        or (isinstance(each, str) and name in TEXT_ARGUMENTS and re.fullmatch(r"\w*", each, re.ASCII) is not None)
        for each in values
    )
