"""Files: read within bounds, written atomically."""

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from seeking.errors import SeekingError

MAX_OPTIONS_BYTES = 1 << 20
"""Bytes of a file of options that are read; a larger one is something else."""

MAX_DEPTH = 50
MAX_DIGITS = 100


class Yaml(yaml.SafeLoader):
    """Safe, and with true and false as the only booleans, as in YAML 1.2: ``on`` and ``no`` are words.

    Without aliases, of which a few stand for more values than any memory holds, and without deep nesting and endless
    numbers, which take the time of their squares to read.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases and deep nesting."""
        here = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not read", here)
        if self.depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", here)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Refuse endless numbers."""
        if len(node.value) > MAX_DIGITS:
            raise yaml.constructor.ConstructorError(None, None, "too long a number", node.start_mark)
        return super().construct_yaml_int(node)


Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml.add_constructor("tag:yaml.org,2002:int", Yaml.construct_yaml_int)
Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|True|false|False)$"), list("tTfF"))


def read_yaml_text(text: str) -> Any:
    """Read YAML, safely.

    Raises:
        ValueError: it is not YAML.
    """
    try:
        return yaml.load(text, Yaml)
    # Impossible dates, numbers of thousands of digits and deep nesting come out as exceptions of their own.
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping, safely.

    Raises:
        SeekingError: the file cannot be read, or holds something else.
    """
    try:
        content = read_yaml_text(read_text(path, MAX_OPTIONS_BYTES))
    except ValueError as error:
        raise SeekingError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise SeekingError(f"{path}: a mapping is expected, found {type(content).__name__}")
    return content


def read_json(path: Path, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object of at most so many bytes.

    Raises:
        SeekingError: the file cannot be read, is larger, or holds something else.
    """
    try:
        content = json.loads(read_text(path, max_bytes))
    except (ValueError, RecursionError) as error:
        raise SeekingError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise SeekingError(f"{path}: a JSON object is expected, found {type(content).__name__}")
    return content


def read_text(path: Path, max_bytes: int) -> str:
    """Read a UTF-8 file of at most so many bytes.

    Raises:
        SeekingError: the file cannot be read, is larger, or is not UTF-8.
    """
    try:
        with open_file(path) as file:
            content = file.read(max_bytes + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise SeekingError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SeekingError(f"{path}: not text in UTF-8 ({error})") from error
    if len(content) > max_bytes:
        raise SeekingError(f"{path}: larger than the {max_bytes:,} bytes that such a file may have")
    return text


def open_file(path: Path) -> BinaryIO:
    """Open a file to read it; a pipe or the like would keep the program waiting.

    Raises:
        OSError: it cannot be read.
        SeekingError: it is no file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise SeekingError(f"{path}: not a file")
    return path.open("rb")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a temporary file beside ``path`` and move it there when it is complete and on the disk.

    Yields:
        The path to write to.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file for people, atomically.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
