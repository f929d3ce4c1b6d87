"""trackio: in the project ``seeking``."""

from accelerate.tracking import TrackioTracker

from seeking.report.trackers.opened import PROJECT, Opened, TrackedRun, short_id


def start(run: TrackedRun) -> Opened:
    """A run is known by its name, so this is unique."""
    known = run.known or f"{run.title}-{short_id()}"
    tracker = TrackioTracker(PROJECT, name=known, resume="allow")
    tracker.start()
    return tracker, known
