"""TensorBoard: in the run folder, or in ``runs``."""

from accelerate.tracking import TensorBoardTracker

from seeking.report.trackers.opened import Opened, TrackedRun

NAME = "tensorboard"


def start(run: TrackedRun) -> Opened:
    """Rows that come again after a resume replace those that were there."""
    folder, name = (run.folder, NAME) if run.folder else ("runs", run.title)
    tracker = TensorBoardTracker(name, folder, purge_step=run.step or 0)
    tracker.start()
    return tracker, NAME
