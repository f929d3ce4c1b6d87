"""The record of a run: rows of metrics and events, logged to a file or kept in memory, and passed to listeners."""

import collections
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from seeking.checkpointing.metrics_log import TAIL, MetricsLog
from seeking.errors import SeekingError

Row = dict[str, Any]
Listener = Callable[[Row], None]
"""Called with every row when it is logged."""


def check_listeners(listeners: object) -> None:
    """Check that listeners are a list of what can be called.

    Raises:
        SeekingError: they are not.
    """
    if not isinstance(listeners, Collection):
        raise SeekingError(f"listeners is a {type(listeners).__name__}; give a list of functions that take a row")
    if wrong := [listener for listener in listeners if not callable(listener)]:
        raise SeekingError(f"a listener is a {type(wrong[0]).__name__}; give a function that takes a row")


class Record:
    """Collects the rows of a run.

    Args:
        listeners: called with every row.
        log: file that rows are appended to, if any.
        in_file: whether a process of the run has such a file; all rows are kept in memory if not.

    Attributes:
        last: the last rows that were logged.
    """

    def __init__(self, listeners: Sequence[Listener], log: MetricsLog | None, in_file: bool = False) -> None:
        self.last: collections.deque[Row] = collections.deque(maxlen=TAIL if in_file else None)
        self._listeners, self._log = [*listeners], log

    def log(self, row: Row) -> None:
        """Add a row to the record and notify the listeners."""
        self.last.append(row)
        if self._log:
            self._log.append(row)
        self.notify(row)

    def rows(self) -> Iterable[Row]:
        """Every row that was logged; of a file that another process writes, the last ones.

        Raises:
            SeekingError: the file cannot be read.
        """
        return self._log.rows() if self._log else self.last

    def notify(self, row: Row) -> None:
        """Pass a row to the listeners without recording it."""
        for listener in self._listeners:
            listener({**row})  # One may change what it gets.

    @contextlib.contextmanager
    def also(self, *listeners: Listener) -> Iterator[None]:
        """Inside, these listeners get the rows, too."""
        self._listeners += listeners
        try:
            yield
        finally:
            for listener in listeners:
                self._listeners.remove(listener)

    def note(self, text: str) -> None:
        """Pass a message to the listeners."""
        self.notify({"kind": "note", "text": text})
