"""Options from files, as flags of the command line, so that there is one way to read and check them."""

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

PLACES = frozenset({"output", "config", "overwrite", "resume"})
"""Options that say where a run is, which its own record of its options need not say."""

LOADING = ("path", "pretrained", "dir", "file", "url")
"""What the names of constructor arguments have in them that load something."""


registry = tyro.constructors.ConstructorRegistry()


@registry.primitive_rule
def _keyword_arguments(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Mappings are written ``key=value``, the values as in YAML."""
    if info.type_origin is not collections.abc.Mapping:
        return None

    def read(arguments: list[str]) -> dict[str, Any]:
        pairs = [argument.partition("=") for argument in arguments]
        for (key, equals, _), argument in zip(pairs, arguments, strict=True):
            if not (key.isidentifier() and equals):
                raise ValueError(f"{argument!r} is not KEY=VALUE")
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
    """Options that a user's file names.

    Args:
        options: by name.
        path: where they come from, for errors.
        command: dataclass that has them.

    Raises:
        SeekingError: there is no such option, or its value cannot be one.
    """
    fields = {field.name: field for field in dataclasses.fields(command)}
    found = []
    for key, value in options.items():
        name = str(key).replace("-", "_")
        if name == "config":  # As a run's own record of its options has it.
            continue
        if name not in fields:
            raise unknown(f"option in {path}", name, fields)
        flag = "--" + name.replace("_", "-")
        if isinstance(fields[name].default, bool):
            if not isinstance(value, bool):
                raise SeekingError(f"{path}: {name} must be true or false, not {value!r}")
            found.append(flag if value else "--no-" + flag[2:])
            continue
        if isinstance(value, Mapping):
            values = [f"{k}={json.dumps(v, default=str)}" for k, v in value.items()]
        else:
            values = [str(item) for item in (value if isinstance(value, list) else [value])]
        for text in values:
            if text[:1] == "-" and not text[1:2].isdigit():  # It would be taken for another option.
                raise SeekingError(f"{path}: {name} is {value!r}; a value cannot begin like a flag")
        found += [flag, *values]
    return found


def flags_of_run(path: Path, command: type[Any]) -> list[str]:
    """The options that a run was started with, but for those that name what could execute or load something.

    Such as these are taken from the command line only: a run folder may be a stranger's.
    """
    try:
        options = read_json(path, MAX_OPTIONS_BYTES)
        taken = {key: value for key, value in options.items() if key not in PLACES and _harmless(key, value)}
        return flags(taken, path, command)
    except SeekingError as error:
        print(f"seeking: {error}; give the run's options again", file=sys.stderr)
        return []


def _harmless(option: str, value: Any) -> bool:
    if option == "condition":
        try:
            parse(str(value), imports=False)
        except SeekingError:
            return False
    if option in ("base", "motivated"):
        return str(value).replace("_", "").replace(".", "").isalnum()
    if option.endswith("_kwargs"):
        return isinstance(value, Mapping) and not any(word in key for key in value for word in LOADING)
    return option != "overrides"
