"""Read files with size limits, and write them atomically."""

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import yaml

from seeking.errors import RunError, SeekingError

MAX_OPTIONS_BYTES = 1 << 20
"""Maximum size of a JSON file of options or results."""

MAX_YAML_BYTES = 1 << 18
"""Maximum size of a YAML file. Python scans it character by character: this much in a third of a second."""

MAX_DEPTH = 50
MAX_DIGITS = 100
MAX_NODES = 10_000
"""Maximum number of values in YAML, each of which takes some 20 µs."""


class Yaml(yaml.SafeLoader):
    """A safe loader of YAML 1.2: ``on`` and ``8:12`` are text, and ``1e-1`` is a number.

    It rejects keys that are given twice, and numbers such as ``010``, which is 8 in YAML 1.1 and 10 in YAML 1.2.

    It rejects aliases, which can expand to more values than fit into memory, deep nesting and very long numbers, which
    take quadratic time, and very many values. libyaml, which is faster, would be a second dialect: it takes a tab for a
    blank, and refuses ``"\\ud800"``.
    """

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Reject aliases and deep nesting."""
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not supported", mark)
        if self.depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", mark)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_NODES:,} values", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Reject keys that are given twice."""
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
                seen.add(key)
        return mapping

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Reject very long and ambiguous numbers."""
        text = node.value
        if len(text) > MAX_DIGITS:
            raise yaml.constructor.ConstructorError(None, None, "number too long", node.start_mark)
        if re.match(r"[-+]?0[0-9_]", text):
            problem = f"{text} can be read as an octal or a decimal number; give it without leading zeros, or in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return int(text, 0)


# The tags of YAML 1.2, and underscores within numbers.
Yaml.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|false|False", list("tTfF")),
    ("int", "[-+]?[0-9](_?[0-9])*|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9](_?[0-9])*(\.([0-9](_?[0-9])*)?)?|\.[0-9](_?[0-9])*)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|"
        r"\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
Yaml.add_constructor("tag:yaml.org,2002:int", Yaml.construct_yaml_int)


def read_yaml_text(text: str) -> Any:
    """Parse YAML safely.

    Raises:
        ValueError: the text is not valid YAML.
    """
    try:
        return yaml.load(text, Yaml)
    # Invalid dates, very long numbers and deep nesting raise other exceptions than YAMLError.
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping safely.

    Raises:
        SeekingError: the file cannot be read, or holds something else.
    """
    try:
        content = read_yaml_text(read_text(path, MAX_YAML_BYTES))
    except ValueError as error:
        raise SeekingError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise SeekingError(f"{path}: expected a mapping, found {type(content).__name__}")
    return content


def read_json(path: Path, max_bytes: int = MAX_OPTIONS_BYTES) -> dict[str, Any]:
    """Read a JSON object of at most ``max_bytes`` bytes.

    Raises:
        SeekingError: the file cannot be read, is larger, or holds something else.
    """
    try:
        content = json.loads(read_text(path, max_bytes))
    except (ValueError, RecursionError) as error:
        raise SeekingError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise SeekingError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def read_text(path: Path, max_bytes: int) -> str:
    """Read a UTF-8 file of at most ``max_bytes`` bytes.

    Raises:
        SeekingError: the file cannot be read, is larger, or is not UTF-8.
    """
    with reading(path), open_file(path) as file:
        content = file.read(max_bytes + 1)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SeekingError(f"{path}: not text in UTF-8 ({error})") from error
    if len(content) > max_bytes:
        raise SeekingError(f"{path}: larger than the limit of {max_bytes:,} bytes")
    return text


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Inside, a file or folder is read.

    Raises:
        SeekingError: it cannot be.
    """
    try:
        yield
    except OSError as error:
        raise SeekingError(f"{path}: cannot be read ({reason(error)})") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, a file is written.

    Raises:
        RunError: it cannot be.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({reason(error)})") from error


def user_path(text: str | Path) -> Path:
    """A path of the user's: ``~`` is the home folder; what names no user stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - The method of Path raises an error there.


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read it; others, such as pipes, could block.

    Raises:
        OSError: the file cannot be read.
        SeekingError: it is not a regular file.
    """
    check_regular(path)
    return path.open("rb")


def check_regular(path: Path) -> None:
    """Refuse what is no regular file: a pipe could block, and a device has no end.

    Raises:
        OSError: the file cannot be read.
        SeekingError: it is not a regular file.
    """
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode):
        raise SeekingError(f"{path}: a pipe, which can be read only once; save what comes out of it to a file")
    if stat.S_ISDIR(mode):
        raise SeekingError(f"{path}: a folder, not a file; name a file in it")
    if not stat.S_ISREG(mode):
        raise SeekingError(f"{path}: a device or socket, not a file; give a file")


def status(path: Path) -> os.stat_result | None:
    """What is at a path, links not followed; None if nothing is.

    The tests of ``pathlib`` take every error for absence, such as that of a network disk.

    Raises:
        OSError: this cannot be told.
    """
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_file(path: Path) -> bool:
    """Whether a regular file is at a path, not a link to one.

    Raises:
        OSError: this cannot be told.
    """
    file_status = status(path)
    return file_status is not None and stat.S_ISREG(file_status.st_mode)


def is_folder(path: Path) -> bool:
    """Whether a folder is at a path, not a link to one.

    Raises:
        OSError: this cannot be told.
    """
    file_status = status(path)
    return file_status is not None and stat.S_ISDIR(file_status.st_mode)


def reason(error: Exception) -> str:
    """What went wrong in writing or reading, without the path, which may be that of a temporary file."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def check_new(path: Path, kind: Literal["file", "folder"]) -> None:
    """Make sure, before the work that it is for, that a file or folder can be written; those it is in may be missing.

    Raises:
        SeekingError: it cannot, or a folder has the name of the file.
    """
    try:
        if kind == "file" and path.is_dir():
            raise SeekingError(f"{path}: a folder, not a file; name a file in it")
        folder = path if kind == "folder" else path.parent
        while status(folder) is None and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            what = "a link that leads nowhere" if folder.is_symlink() else "no folder"
            raise SeekingError(f"{path}: cannot be written, as {folder} is {what}; name another {kind}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SeekingError(f"{path}: cannot be written, as nothing may be written in {folder}; name another {kind}")
    except OSError as error:
        raise SeekingError(f"{path}: cannot be written ({reason(error)})") from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[None]:
    """Inside, a file is written; the folders that it is in are made.

    Raises:
        RunError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield


def temporary_name(name: str) -> str:
    """The name of the folder in which a file or folder is written before it is renamed."""
    return f".{name}.writing"


def remove_temporary(path: Path) -> None:
    """Delete what an interrupted program has left at a path that ``temporary_name`` gives."""
    if is_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: Path, ready: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Write a temporary file, flush it to disk and rename it to ``path``.

    The file lies in a temporary folder next to ``path``, in which libraries may have temporary files of their own.

    Args:
        path: of the file.
        ready: called with the path of the complete temporary file before it is renamed.

    Yields:
        The path to write to.
    """
    folder = path.with_name(temporary_name(path.name))
    temporary = folder / path.name
    remove_temporary(folder)
    try:
        folder.mkdir()
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)  # The umask's; safetensors writes files that only their owner can read.
        flush(temporary)
        if ready:
            ready(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Write an indented JSON file atomically.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def flush(path: Path) -> None:
    """Flush a file or a folder entry to disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
