"""Weights & Biases: in the project of ``WANDB_PROJECT``, or in ``seeking``."""

import os
import uuid

from accelerate.tracking import WandBTracker

from seeking.report.trackers.opened import PROJECT, Opened, TrackedRun


def start(run: TrackedRun) -> Opened:
    """A run that is resumed goes on under its id."""
    known = run.known or uuid.uuid4().hex
    tracker = WandBTracker(os.environ.get("WANDB_PROJECT", PROJECT), name=run.title, id=known, resume="allow")
    tracker.start()
    return tracker, known
