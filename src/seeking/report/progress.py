"""How far runs are: bars on a terminal, else a line every few seconds."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from seeking.choices import MODELS
from seeking.report.metric import LOSS, metric_of, shown
from seeking.report.status import Speed, cut, one_line, short_number
from seeking.training.record import Row

SMOOTHING = 0.95

INTERVAL = 10.0
"""Seconds between two lines of a run that is not shown on a terminal."""

BAR_COLUMNS = 11 + 5 + 9
"""Columns of the bar, the per cent and the time left, with the blanks between them."""


class RunProgress:
    """Shows how far a run is, its losses and its evaluations: a listener, to be closed at the run's end.

    On a terminal that is a bar, in one line of any width; elsewhere, a line every ten seconds.

    Args:
        console: where to show it.
        title: name of the run.
        unit: what the batches consist of.
        clock: gives the time in seconds.
        best: metric by which the best weights are kept, if one is named; an evaluation is told by it.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        unit: str = "samples",
        clock: Callable[[], float] = time.monotonic,
        best: str | None = None,
    ) -> None:
        self._console, self._unit, self._clock, self._best = console, unit, clock, best
        self.title = title
        self._losses: dict[str, float] = {}
        self._stepped: set[str] = set()  # Models that have taken a step since the last evaluation.
        self._total = self._step = self._steps = self._motivated = 0
        self._saved = self._length = ""
        self._speed = Speed(clock)
        self._next_line = clock() + INTERVAL
        self._begun = (clock(), 0)
        self._bar: Progress | None = None

    def open(self) -> None:
        """Show the bar, before the run has begun."""
        if not self._bar and (self._console.is_terminal or self._console.is_jupyter):
            self._bar = _bar(self._console, "{task.fields[title]}", "{task.fields[status]}")
            title, status = cut(self.title, 30), "checking models and data"
            self._task = self._bar.add_task("", total=None, title=title, status=status)
            self._bar.start()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> "RunProgress":
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(self, row: Row) -> None:
        """Show what a row says."""
        kind = row["kind"]
        if kind == "step":
            self._add_step(row)
            return
        self._speed.pause()
        if kind == "start":
            self._length = f"/{row['epochs']}" if row["epochs"] is not None else ""
            self._total = row["steps"]
            self._step = row.get("step", 0)
            self._begun = self._clock(), self._step
            self.open()
            if self._bar:
                self._bar.update(self._task, total=self._total, completed=self._step)
        elif kind == "note":
            self._print(row["text"])
        elif kind == "saving":
            self._saved = f"saved at step {row['step']}"
        elif kind == "stopped":
            where = f" and saved in {row['path']}; add --resume to the command to continue" if row["path"] else ""
            self._print(f"stopped after step {row['step']}{where}")
        elif kind == "eval":
            first, *others = _scores(row, self._best) or [f"loss {self._mean_losses()}"]
            text = f"epoch {row['epoch']}{self._length}: {first}"
            for fact in (*self._rest(row), *others, *self._share()):
                text += f", {fact}" if not self._bar or len(text) + len(fact) < self._console.width - 1 else ""
            self._print(text)
            self._stepped.clear()

    def _add_step(self, row: Row) -> None:
        self._step, self._steps = row["step"] + 1, self._steps + 1
        self._motivated += "motivated_loss" in row
        for name, key in (("base", "loss"), ("motivated", "motivated_loss")):
            if key in row:
                loss: float = row[key]
                self._losses[name] = SMOOTHING * self._losses.get(name, loss) + (1 - SMOOTHING) * loss
                self._stepped.add(name)
        self._speed.add(row.get("samples", 0))
        speed = self._speed.per_second
        speeds = [f"{speed:,.0f} {self._unit}/s"] if speed else []
        if self._bar:
            notes = [*self._share(), *speeds, *([self._saved] if self._saved else [])]
            title, status = one_line(self._console.width - BAR_COLUMNS, self.title, self._losses, notes)
            self._bar.update(self._task, completed=self._step, title=title, status=status)
        elif self._clock() >= self._next_line:
            self._next_line = self._clock() + INTERVAL
            losses = self._mean_losses()
            facts = [f"step {self._step}/{self._total}", f"loss {losses}", f"lr {row.get('lr', 0):.3g}"]
            self._print(", ".join([*facts, *speeds, *self._share(), *self._time_left()]))

    def _mean_losses(self) -> str:
        return " ".join(f"{name} {short_number(loss)}" for name, loss in self._losses.items())

    def _rest(self, evaluation: Row) -> list[str]:
        """That the base has taken no step: its scores are those of the shared weights, which may be poor."""
        return ["base at rest"] if evaluation.get("base") and self._stepped == {"motivated"} else []

    def _share(self) -> list[str]:
        if "base" not in self._losses or not self._motivated:  # A model alone is not motivated.
            return []
        return [f"{self._motivated / self._steps:.1%} of batches motivated"]

    def _time_left(self) -> list[str]:
        since, first = self._begun
        seconds = (self._clock() - since) / (self._step - first) * (self._total - self._step)
        return [f"{seconds // 60:.0f}:{seconds % 60:02.0f} left"]

    def _print(self, text: str) -> None:
        """A line of its own; on a terminal, the title gives way to the text."""
        title = f"{self.title}: "
        if self._bar and cell_len(title + text) > self._console.width:
            room = self._console.width - cell_len(text) - 2
            title = f"{cut(self.title, room)}: " if room > 4 else ""
        self._console.print(f"{title}{text}", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def many_runs(console: Console) -> Iterator[Callable[[str, Row], None]]:
    """Show one progress bar for runs in parallel; yields a listener that takes the name of a run and a row.

    A row of kind ``plan`` holds the number of epochs that all runs together have left.
    """
    with _bar(console, "{task.description}") as bars:
        task = bars.add_task("checking models and data", total=None)
        lengths: dict[str, int] = {}
        reached: dict[str, int] = {}

        def listen(name: str, row: Row) -> None:
            if row["kind"] == "plan":
                bars.update(task, total=row["epochs"], completed=0, description=row["text"])
            elif row["kind"] == "start":
                lengths[name] = row["epochs"]
                bars.update(task, description=name)
            elif row["kind"] == "eval":
                bars.update(
                    task, advance=row["epoch"] - reached.get(name, 0), description=f"{name}, epoch {row['epoch']}"
                )
                reached[name] = row["epoch"]
                if row["epoch"] == lengths.get(name):
                    console.print(f"{name}: {', '.join(_scores(row))}", highlight=False, soft_wrap=True)

        yield listen


def _bar(console: Console, *texts: str) -> Progress:
    """A bar, the per cent, the time left, and texts that are cut instead of wrapped."""
    columns: list[Any] = [BarColumn(bar_width=10), TaskProgressColumn(), TimeRemainingColumn(compact=True)]
    for text in texts:
        columns.append(TextColumn(text, markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")))
    return Progress(*columns, console=console, refresh_per_second=2, transient=True)


def _scores(row: Row, best: str | None = None) -> list[str]:
    """What an evaluation tells of each model: its best metric, accuracy, bits per byte or the loss; then the others."""
    models = {name: row[name] for name in MODELS if row.get(name)}
    metric = shown(models.values(), best)
    others = [name for name in next(iter(models.values()), ()) if name not in (LOSS.name, metric.name)]
    return [
        f"{each.title} {' '.join(f'{name} {each.text(metrics[each.name])}' for name, metrics in models.items())}"
        for each in (metric, *map(metric_of, others))
        if models and all(each.name in metrics for metrics in models.values())
    ]
