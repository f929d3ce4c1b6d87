"""The state of a run in one line of a given width."""

import time
from collections.abc import Callable, Mapping, Sequence

from rich.cells import cell_len, set_cell_size

SHORTEST_TITLE = 12
"""Columns of a title below which it gives way to nothing else than the losses."""


def one_line(width: int, title: str, losses: Mapping[str, float], notes: Sequence[str] = ()) -> tuple[str, str]:
    """A run's title, and its losses and notes, in this many columns together with a blank between them.

    The title is shortened first; then notes are left out, the last one first; then the title, and the names of the
    models.

    Args:
        width: columns of the terminal.
        title: name of the run.
        losses: of each model.
        notes: what else is worth telling, the most important first.
    """
    long = " ".join(["loss", *(f"{name} {short_number(loss)}" for name, loss in losses.items())] if losses else [])
    for count in range(len(notes), -1, -1):
        text = ", ".join(each for each in (long, *notes[:count]) if each)
        room = width - cell_len(text) - 1
        if room >= min(SHORTEST_TITLE, cell_len(title)):
            return cut(title, room), text
    if room < 0:
        text = " ".join(f"{name[:1]} {short_number(loss)}" for name, loss in losses.items())
    return cut(title, max(0, width - cell_len(text) - 1)), text


def cut(text: str, width: int) -> str:
    """A text in at most this many columns, with an ellipsis for what is missing."""
    if cell_len(text) <= width:
        return text
    return f"{set_cell_size(text, width - 1).rstrip()}…" if width else ""


def short_number(value: float) -> str:
    """A number in at most nine characters."""
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.2e}"


class Speed:
    """Samples a second over the latest second or more, without the time between trains of steps.

    Args:
        clock: gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._samples = 0
        self.per_second: float | None = None

    def pause(self) -> None:
        """What comes until the next step is no training."""
        self._since = None

    def add(self, samples: int) -> None:
        """A step has been taken on this many samples."""
        now = self._clock()
        if self._since is None:
            self._since, self._samples = now, 0
            return
        self._samples += samples
        if now - self._since >= 1:
            self.per_second = self._samples / (now - self._since)
            self._since, self._samples = now, 0
