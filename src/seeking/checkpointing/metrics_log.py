"""The record of a run, ``metrics.jsonl``: a row for each batch and each evaluation."""

import collections
import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seeking.checkpointing.place import Place
from seeking.errors import DamagedError, RunWarning
from seeking.files import is_file, open_file, reading, reason, status

MAX_ROW_LENGTH = 1 << 20
"""Characters of a row that are read."""


TAIL = 1000
"""Rows that are kept in memory of a record that is in a file."""

MAX_WRITE = 1 << 20
"""Bytes that are written at once."""


class MetricsLog:
    """Appends rows to a file; while it cannot be written, rows wait in memory.

    Args:
        path: of the file.
        place: the folder of the file, which may be moved.
    """

    def __init__(self, path: Path, place: Place) -> None:
        self.path = path
        self._place = place
        self._descriptor: int | None = None
        self._written = 0
        self._pending = bytearray()

    @property
    def size(self) -> int:
        """Length of the file in bytes once all rows are in it."""
        return self._written + len(self._pending)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        already_failed = len(self._pending)
        self._pending += (json.dumps(row) + "\n").encode()
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                with self._place.open() as folder:
                    self._descriptor = os.open(self.path.name, flags, 0o666, dir_fd=folder)
            while self._pending:
                count = os.write(self._descriptor, self._pending[:MAX_WRITE])
                self._written += count
                del self._pending[:count]
        except OSError as error:
            if not already_failed:
                warnings.warn(
                    f"{self.path}: cannot be written ({reason(error)}); the rows wait in memory",
                    RunWarning,
                    stacklevel=2,
                )

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, from the file and those that wait.

        Raises:
            SeekingError: the file cannot be read, or a line is not a row.
        """
        waiting = bytes(self._pending)
        if not waiting:
            yield from read_rows(self.path)
            return
        with contextlib.suppress(OSError), open_file(self.path) as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)
                else:
                    waiting = line + waiting
        yield from map(json.loads, waiting.splitlines())

    def rewind(self, size: int) -> list[dict[str, Any]]:
        """Cut the file back to the size that it had at a checkpoint.

        Args:
            size: in bytes.

        Returns:
            The last of the rows that remain.

        Raises:
            OSError: the file cannot be read or written.
            SeekingError: a row is damaged.
        """
        file_status = status(self.path)
        current = file_status.st_size if file_status else 0
        if current < size:
            warnings.warn(
                f"{self.path}: rows are missing ({current:,} bytes of {size:,}); the run continues without them",
                RunWarning,
                stacklevel=2,
            )
        if not file_status:
            return []
        if not is_file(self.path):
            raise DamagedError(f"{self.path}: not a file")
        with self.path.open("rb+") as file:
            start = max(0, min(current, size) - MAX_ROW_LENGTH)
            file.seek(start)
            file.truncate(start + file.read(min(current, size) - start).rfind(b"\n") + 1)
            self._written = file.tell() if current >= size else file.seek(0, os.SEEK_END)
        return [*collections.deque(read_rows(self.path), maxlen=TAIL)]


def read_rows(path: Path, instead: str = "move the file away to continue without these rows") -> Iterator[Any]:
    """The rows of a ``metrics.jsonl``, mappings.

    Args:
        path: of the file.
        instead: what to do if a row is damaged.

    Raises:
        DamagedError: a line is not a row.
        SeekingError: it cannot be read.
    """
    with reading(path), open_file(path) as file:
        number = 0
        while line := file.readline(MAX_ROW_LENGTH):
            number += 1
            try:
                row = json.loads(line)
                if not (isinstance(row, dict) and isinstance(row["kind"], str)):
                    raise ValueError("not a row of metrics")
            except (ValueError, KeyError, RecursionError) as error:
                raise DamagedError(f"{path}, line {number}: damaged ({error}); {instead}") from error
            yield row
