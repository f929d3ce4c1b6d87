"""MLflow: in the experiment ``seeking``, at ``MLFLOW_TRACKING_URI``."""

from accelerate.tracking import MLflowTracker

from seeking.report.trackers.opened import PROJECT, Opened, TrackedRun


def start(run: TrackedRun) -> Opened:
    """A run that is resumed goes on under its id, which MLflow gives."""
    tracker = MLflowTracker(PROJECT, run_id=run.known, run_name=run.title)
    tracker.start()
    return tracker, tracker.tracker.info.run_id
