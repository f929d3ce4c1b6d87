"""The record of a run: rows of metrics and events, kept in memory, logged to a file and passed to listeners."""

from collections.abc import Callable, Sequence
from typing import Any

from seeking.checkpointing.metrics_log import MetricsLog

Row = dict[str, Any]
Listener = Callable[[Row], None]
"""Called with every row when it is logged."""


class Record:
    """Collects the rows of a run.

    Args:
        listeners: called with every row.
        log: file that rows are appended to, if any.

    Attributes:
        history: every row that was logged.
    """

    def __init__(self, listeners: Sequence[Listener], log: MetricsLog | None) -> None:
        self.history: list[Row] = []
        self._listeners, self._log = listeners, log

    def log(self, row: Row) -> None:
        """Add a row to the record and notify the listeners."""
        self.history.append(row)
        if self._log:
            self._log.append(row)
        self.notify(row)

    def notify(self, row: Row) -> None:
        """Pass a row to the listeners without recording it."""
        for listener in self._listeners:
            listener(row)

    def note(self, text: str) -> None:
        """Pass a message to the listeners."""
        self.notify({"kind": "note", "text": text})
