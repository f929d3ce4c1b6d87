"""The record of a run, ``metrics.jsonl``: a row for each batch and each evaluation."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seeking.errors import RunWarning, SeekingError
from seeking.files import open_file

MAX_ROW_LENGTH = 1 << 20
"""Characters of a row that are read."""


class MetricsLog:
    """Appends rows to a file; while it cannot be written, rows wait in memory.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._written = 0
        self._pending = b""

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
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            count = os.write(self._descriptor, self._pending)
        except OSError as error:
            if not already_failed:
                warnings.warn(
                    f"{self.path}: cannot be written ({error.strerror}); the rows wait in memory",
                    RunWarning,
                    stacklevel=2,
                )
        else:
            self._written += count
            self._pending = self._pending[count:]

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def rewind(self, size: int) -> list[dict[str, Any]]:
        """Cut the file back to the size that it had at a checkpoint.

        Args:
            size: in bytes.

        Returns:
            The rows that remain.

        Raises:
            OSError: the file cannot be read or written.
            SeekingError: a row is damaged.
        """
        current = self.path.stat().st_size if self.path.exists() else 0
        if current < size:
            warnings.warn(
                f"{self.path}: rows are missing ({current:,} bytes of {size:,}); the run continues without them",
                RunWarning,
                stacklevel=2,
            )
        if not self.path.exists():
            return []
        with self.path.open("rb+") as file:
            start = max(0, min(current, size) - MAX_ROW_LENGTH)
            file.seek(start)
            file.truncate(start + file.read(min(current, size) - start).rfind(b"\n") + 1)
            self._written = file.tell() if current >= size else file.seek(0, os.SEEK_END)
        return list(read_rows(self.path))


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``.

    Raises:
        SeekingError: it cannot be read, or a line is not a row.
    """
    try:
        with open_file(path) as file:
            number = 0
            while line := file.readline(MAX_ROW_LENGTH):
                number += 1
                try:
                    row = json.loads(line)
                    if not (isinstance(row, dict) and isinstance(row["kind"], str)):
                        raise ValueError("not a row of metrics")
                except (ValueError, KeyError, RecursionError) as error:
                    raise SeekingError(
                        f"{path}, line {number}: damaged ({error}); move the file away to continue without these rows"
                    ) from error
                yield row
    except OSError as error:
        raise SeekingError(f"{path}: cannot be read ({error.strerror})") from error
