"""The record of a run: its rows, kept, written and told to listeners."""

from collections.abc import Callable, Sequence
from typing import Any

from seeking.checkpointing.metrics_log import MetricsLog

Row = dict[str, Any]
Listener = Callable[[Row], None]
"""Called with every row as it comes."""


class Record:
    """Takes the rows of a run.

    Args:
        listeners: called with every row.
        log: file that rows are written to, if any.

    Attributes:
        history: every row that was logged.
    """

    def __init__(self, listeners: Sequence[Listener], log: MetricsLog | None) -> None:
        self.history: list[Row] = []
        self._listeners, self._log = listeners, log

    def log(self, row: Row) -> None:
        """Add a row to the record, and tell it."""
        self.history.append(row)
        if self._log:
            self._log.append(row)
        self.notify(row)

    def notify(self, row: Row) -> None:
        """Tell the listeners of something that is not part of the record."""
        for listener in self._listeners:
            listener(row)

    def note(self, text: str) -> None:
        """Tell the listeners something in words."""
        self.notify({"kind": "note", "text": text})
