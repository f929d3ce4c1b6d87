"""Parse the options of a command from flags."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

import docstring_parser
import tyro

from seeking.errors import SeekingError
from seeking.files import read_yaml_text, user_path
from seeking.option_types import REPEATED, marked, remembered, types_of

Options = TypeVar("Options")

HELP = frozenset({"-h", "--help"})

registry = tyro.constructors.ConstructorRegistry()


def parse_options(command: type[Options], args: Sequence[str], prog: str, of_files: Sequence[str] = ()) -> Options:
    """The options that flags give.

    Args:
        command: dataclass of the options.
        args: the flags and their values.
        prog: name of the program, for help and error messages.
        of_files: those that a recipe or another file gives, which these override; help shows their values as defaults.

    Raises:
        SeekingError: a value is out of range.
        SystemExit: a flag does not exist, or its value cannot be read; or help was asked for. It has been printed.
    """
    # DisallowNone gives each switch a --no-…, also those that are neither on nor off by default.
    markers = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone)
    every = [*of_files, *args]
    _check_paths(every, command)
    options = _documented(command, _named(every, command))
    parse = functools.partial(tyro.cli, options, prog=prog, registry=registry, config=markers)
    parsed = parse(args=every, default=parse(args=of_files) if of_files and HELP & {*args} else None)
    return command(**{field.name: _at_home(getattr(parsed, field.name)) for field in dataclasses.fields(parsed)})


def _check_paths(args: Sequence[str], command: type[Any]) -> None:
    """Refuse paths without a character, as of a shell variable that is not set: they would be the current folder."""
    for name, hint in types_of(command).items():
        flag = "--" + name.replace("_", "-")
        given = [arg.partition("=")[0].replace("_", "-") for arg in args[:-1]]
        empty = any(last == flag and not arg for last, arg in zip(given, args[1:], strict=True)) or f"{flag}=" in args
        if empty and Path in (hint, *typing.get_args(hint)):
            raise SeekingError(f"{name} is empty; give a path, or leave it out")


def _at_home(value: Any) -> Any:
    """A path with the folder for its ``~``, which no shell replaces in ``--output=~/runs`` or in a file of options."""
    return user_path(value) if isinstance(value, Path) else value


def plain_switches(args: Sequence[str], command: type[Any]) -> list[str]:
    """The same flags, with ``--name`` for ``--name True`` and ``--no-name`` for ``--name False`` of each switch.

    Raises:
        SeekingError: a switch is set to something else.
    """
    switches = {
        "--" + name.replace("_", "-")
        for name, hint in types_of(command).items()
        if bool in (hint, *typing.get_args(hint))
    }
    plain: list[str] = []
    unset = ""  # The switch that the next word may set.
    for arg in args:
        name, equals, value = arg.partition("=")
        name = name.replace("_", "-")
        if equals and name in switches:
            if value.lower() not in ("true", "false"):
                raise SeekingError(f"{name} is {value!r}; it is a switch: give {name}, or --no-{name[2:]}")
            plain.append(_switch(name, value))
        elif unset and arg.lower() in ("true", "false"):
            plain[-1] = _switch(unset, arg)
        else:
            plain.append(arg)
        unset = name if name in switches and not equals else ""
    return plain


def _switch(flag: str, value: str) -> str:
    return flag if value.lower() == "true" else f"--no-{flag[2:]}"


def _named(args: Sequence[str], command: type[Any]) -> frozenset[str]:
    """The options that these flags give, and those that have to be given.

    A parser of all options, which takes many times as long to be made as one of a few, is needed to say which there
    are: of every option, if a flag is none of theirs.
    """
    flags, needed = _flags(command)
    given = [arg.partition("=")[0].replace("_", "-") for arg in args if arg[:1] == "-" and not arg[1:2].isdigit()]
    return needed.union(flags[flag] for flag in given) if flags.keys() >= {*given} else frozenset(flags.values())


@remembered
def _flags(command: type[Any]) -> tuple[dict[str, str], frozenset[str]]:
    """For each flag the name of its option, and the options that have no default."""
    hints, flags = types_of(command), {}
    fields = dataclasses.fields(command)
    for field in fields:
        words = field.name.replace("_", "-")
        flags[f"--{words}"] = field.name
        if bool in (hints[field.name], *typing.get_args(hints[field.name])):
            flags[f"--no-{words}"] = field.name
    absent = {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING}
    return flags, frozenset(absent)


@remembered
def _texts(command: type[Any]) -> dict[str, str]:
    """The help of each option, in one paragraph, which tyro breaks where the source does."""
    parameters = [p for each in reversed(command.__mro__[:-1]) for p in docstring_parser.parse_from_object(each).params]
    return {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in parameters}


@remembered
def _documented(command: type[Any], names: frozenset[str]) -> type[Any]:
    """Some of the options with their help, and without a default where there is none."""
    hints = typing.get_type_hints(command, include_extras=True)
    fields, repeated = [], marked(command, REPEATED)
    for field in dataclasses.fields(command):
        if field.name not in names:
            continue
        hint = None if field.name in repeated else _default_shown
        shown = tyro.conf.arg(help=_texts(command)[field.name], help_behavior_hint=hint)
        copied = dataclasses.field(default=field.default, default_factory=field.default_factory)
        markers = (shown, tyro.conf.UseAppendAction) if field.name in repeated else (shown,)
        fields.append((field.name, Annotated[(hints[field.name], *markers)], copied))
    return dataclasses.make_dataclass(
        command.__name__, fields, namespace={"__doc__": command.__doc__}, frozen=True, kw_only=True
    )


def _default_shown(value: str) -> str:
    return f"(default: {value})" if value not in ("", "None") else ""


@registry.primitive_rule
def _optional(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Parse an option that may be None as one that may not; the word None sets it back, over a file or a recipe."""
    inner = [each for each in typing.get_args(info.type) if each is not types.NoneType]
    if info.type_origin not in (Union, types.UnionType) or len(inner) != 1 or len(typing.get_args(info.type)) != 2:
        return None
    given = tyro.constructors.PrimitiveTypeInfo.make(inner[0], info.markers)
    spec = tyro.constructors.ConstructorRegistry.get_primitive_spec(given)
    if not isinstance(spec, tyro.constructors.PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec,
        instance_from_str=lambda texts: None if texts == ["None"] else spec.instance_from_str(texts),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
        choices=spec.choices and (*spec.choices, "None"),
    )


@registry.primitive_rule
def _keyword_arguments(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Parse mappings as ``KEY=VALUE`` arguments with YAML values."""
    if info.type_origin is not Mapping:
        return None

    def read(arguments: list[str]) -> dict[str, Any]:
        pairs = [argument.partition("=") for argument in arguments]
        for (key, equals, _), argument in zip(pairs, arguments, strict=True):
            if not (key.isidentifier() and equals):
                raise ValueError(f"{argument!r} is not KEY=VALUE")
        keys = [key for key, _, _ in pairs]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"given twice: {', '.join(sorted(twice))}")
        for (_, _, value), argument in zip(pairs, arguments, strict=True):
            if value == "None" or value.startswith("("):  # As timm reads them, which would be text.
                raise ValueError(f"{argument!r} is Python; give a YAML value, such as null or [1, 2]")
        try:
            return {key: read_yaml_text(value) for key, _, value in pairs}
        except ValueError as error:
            raise ValueError(f"not a YAML value: {error}") from error

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="KEY=VALUE …",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [f"{key}={item}" for key, item in value.items()],
    )
