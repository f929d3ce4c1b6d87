"""The folder that a run has locked, which others may move, delete or replace while it is in use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seeking.errors import RunError


class Place:
    """A folder that is told from any other that comes to lie at its path.

    Args:
        path: of the folder.
        lock: name of the file in it that is locked.
    """

    def __init__(self, path: Path, lock: str) -> None:
        self.path, self.lock = path, path / lock
        self._identities: list[tuple[int, int]] | None = None

    @property
    def taken(self) -> bool:
        """Whether ``take`` was called, and ``leave`` not since then."""
        return self._identities is not None

    def take(self) -> None:
        """Remember the folder that is at the path now; it is locked.

        Raises:
            OSError: it is gone.
        """
        self._identities = [_identity(path.stat()) for path in (self.path, self.lock)]

    def leave(self) -> None:
        """Forget the folder."""
        self._identities = None

    def check(self, *_: object) -> None:
        """Make sure that the folder at the path is the one that was locked.

        Raises:
            RunError: it was moved, deleted or replaced.
        """
        try:
            moved = [_identity(path.stat()) for path in (self.path, self.lock)] != self._identities
        except FileNotFoundError:
            moved = True
        if moved:
            raise self._gone()

    @contextmanager
    def open(self) -> Iterator[int]:
        """A descriptor of the folder: what is made in it is in no other, whatever becomes of the path meanwhile.

        Raises:
            OSError: it cannot be opened.
            RunError: it was moved, deleted or replaced.
        """
        self.check()
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            if self._identities and _identity(os.fstat(descriptor)) != self._identities[0]:
                raise self._gone()
            yield descriptor
        finally:
            os.close(descriptor)

    def _gone(self) -> RunError:
        return RunError(
            f"{self.path}: no longer the folder that this run has locked; it, or its {self.lock.name}, was moved, "
            "deleted or replaced; nothing is written to it"
        )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
