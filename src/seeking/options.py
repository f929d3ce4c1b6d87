"""Options from files, converted to command-line flags, so that both are parsed and validated in the same way."""

import collections.abc
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from seeking.conditions import parse
from seeking.errors import SeekingError, unknown
from seeking.files import MAX_OPTIONS_BYTES, read_json, read_yaml_text
from seeking.report.output import printable

NOT_RESUMED = frozenset({"output", "config", "overwrite", "resume"})
"""Options that are not taken from the run folder when a run is resumed."""

LOADING_WORDS = ("path", "pretrained", "dir", "file", "url")
"""Constructor arguments whose names contain one of these words may load a file."""


registry = tyro.constructors.ConstructorRegistry()


@registry.primitive_rule
def _keyword_arguments(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Parse mappings as ``KEY=VALUE`` arguments with YAML values."""
    if info.type_origin is not collections.abc.Mapping:
        return None

    def read(arguments: list[str]) -> dict[str, Any]:
        pairs = [argument.partition("=") for argument in arguments]
        for (key, equals, _), argument in zip(pairs, arguments, strict=True):
            if not (key.isidentifier() and equals):
                raise ValueError(f"{argument!r} is not KEY=VALUE")
        keys = [key for key, _, _ in pairs]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"given twice: {', '.join(sorted(twice))}")
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
    arguments = []
    given: set[str] = set()
    for key, value in options.items():
        name = str(key).replace("-", "_")
        if name in given:
            raise SeekingError(f"{path}: {name} is given twice")
        given.add(name)
        if name == "config":  # The recorded options of a run include it.
            continue
        if name not in fields:
            raise unknown(f"option in {path}", name, fields)
        flag = "--" + name.replace("_", "-")
        if isinstance(fields[name].default, bool):
            if not isinstance(value, bool):
                raise SeekingError(f"{path}: {name} must be true or false, not {value!r}")
            arguments.append(flag if value else "--no-" + flag[2:])
            continue
        if isinstance(value, Mapping):
            values = [f"{k}={json.dumps(v, default=str)}" for k, v in value.items()]
        else:
            values = [str(item) for item in (value if isinstance(value, list) else [value])]
        for text in values:
            if text[:1] == "-" and not text[1:2].isdigit():  # It would be parsed as another option.
                raise SeekingError(f"{path}: {name} is {value!r}; a value cannot start with a dash")
        arguments += [flag, *values]
    return arguments


def flags_of_run(path: Path, command: type[Any]) -> list[str]:
    """The recorded options of a run as flags, except those that could execute code or load files.

    The run folder may be untrusted, so such options must be given on the command line again.
    """
    try:
        options = read_json(path, MAX_OPTIONS_BYTES)
        safe = {key: value for key, value in options.items() if key not in NOT_RESUMED and _is_safe(key, value)}
        return flags(safe, path, command)
    except SeekingError as error:
        print(printable(f"seeking: {error}; give the options of the run again"), file=sys.stderr)
        return []


def _is_safe(option: str, value: Any) -> bool:
    if option == "condition":
        try:
            parse(str(value), imports=False)
        except SeekingError:
            return False
    if option in ("base", "motivated"):
        return str(value).replace("_", "").replace(".", "").isalnum()
    if option.endswith("_kwargs"):
        return isinstance(value, Mapping) and not any(word in key for key in value for word in LOADING_WORDS)
    return option != "overrides"
