"""What a run shows while it trains, and the figure that it leaves."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

from torch import nn

from seeking.checkpointing.saver import Saver
from seeking.errors import RunError
from seeking.report.output import make_console
from seeking.report.progress import RunProgress
from seeking.training.record import Record
from seeking.training.result import Result

FIGURE = "curves.png"
"""Name of the figure in the run folder."""


Display = RunProgress | bool
"""What shows how far a run is; True for the usual, False for nothing."""


@contextlib.contextmanager
def shown(
    progress: Display, models: Mapping[str, nn.Module], record: Record, saver: Saver
) -> Iterator[Callable[[Result], None]]:
    """Inside, a run shows how far it is; yields a function that draws the figure of its result.

    Args:
        progress: how it is shown: on standard error if True; if False, nothing is shown and drawn.
        models: the models that are trained, by name.
        record: of the run.
        saver: of the run; there is a figure only if it writes to a folder.
    """
    if not progress:
        yield lambda result: None
        return
    if not isinstance(progress, RunProgress):
        progress = RunProgress(make_console(stderr=True), " in ".join(type(each).__name__ for each in models.values()))

    def draw(result: Result) -> None:
        if not saver.folder or not saver.metrics:
            return
        from seeking.report.plots import draw  # matplotlib is slow to import.

        try:
            saver.folder.write_file(FIGURE, lambda path: draw({"pair": [result]}, path, progress.title))
        except OSError as error:
            raise RunError(f"{saver.folder.path / FIGURE}: cannot be written ({error.strerror})") from error

    with progress, record.also(progress):
        yield draw
