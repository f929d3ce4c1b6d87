"""What a run shows while it trains, and the figure that it leaves."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping

from accelerate import Accelerator
from torch import nn

from seeking.checkpointing.saver import Saver
from seeking.errors import RunError, RunWarning
from seeking.files import reason
from seeking.report.output import make_console
from seeking.report.progress import RunProgress
from seeking.report.trackers import Tracking
from seeking.training.config import TrainConfig
from seeking.training.record import Record
from seeking.training.result import Result

FIGURE = "curves.png"
"""Name of the figure in the run folder."""

Display = RunProgress | bool
"""What shows how far a run is; True for the usual, False for nothing."""

Showing = Callable[[], contextlib.AbstractContextManager[Callable[[Result], None]]]
"""Makes a context inside which a run is shown, and which gives a function that draws the figure of its result."""


def make_showing(
    display: Display,
    config: TrainConfig,
    models: Mapping[str, nn.Module],
    record: Record,
    saver: Saver,
    accelerator: Accelerator,
) -> Showing:
    """How a run is shown.

    Args:
        display: if True, on standard error; if False, not at all, and there is no figure.
        config: whose trackers get the metrics.
        models: that are trained, by name.
        record: of the run.
        saver: of the run; there is a figure only where it writes to a folder.
        accelerator: whose main process shows the run.

    Raises:
        SeekingError: the package of a tracker is not installed.
    """
    title = " in ".join(type(model).__name__ for model in models.values())
    if display is True:
        display = RunProgress(make_console(stderr=True), title, best=config.best)
    names = config.tracker if accelerator.is_main_process else ()
    tracking = Tracking(names, title, saver.folder, config.recorded())
    return functools.partial(_shown, display or None, tracking, record, saver, config.best)


@contextlib.contextmanager
def _shown(
    display: RunProgress | None, tracking: Tracking, record: Record, saver: Saver, best: str | None
) -> Iterator[Callable[[Result], None]]:
    def draw(result: Result) -> None:
        if not (display and saver.folder and saver.metrics):
            return
        try:
            from seeking.report.plots import draw  # matplotlib is slow to import.

            saver.folder.write_file(FIGURE, lambda path: draw({"pair": [result]}, path, display.title, best))
        except OSError as error:
            raise RunError(f"{saver.folder.path / FIGURE}: cannot be written ({reason(error)})") from error
        except Exception as error:  # Such as an MPLBACKEND that there is not.
            told = f"{type(error).__name__}: {error}"
            warnings.warn(f"{saver.folder.path / FIGURE}: not drawn ({told})", RunWarning, stacklevel=2)

    with contextlib.ExitStack() as stack:
        for listener in (tracking, display):
            if listener:
                stack.enter_context(contextlib.closing(listener))
                stack.enter_context(record.also(listener))
        yield draw
