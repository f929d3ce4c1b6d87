"""What the file of a tracker gives."""

import uuid
from dataclasses import dataclass
from pathlib import Path

from accelerate.tracking import GeneralTracker

PROJECT = "seeking"


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker is opened for.

    Attributes:
        title: of the run.
        known: the tracker's id of the run, if the run is resumed.
        folder: of the run, if any.
        step: that it goes on from; None if it begins.
    """

    title: str
    known: str | None
    folder: Path | None
    step: int | None


Opened = tuple[GeneralTracker, str]
"""A tracker that has been started, and its id of the run."""


def short_id() -> str:
    """A few random characters, which make a title unique."""
    return uuid.uuid4().hex[:6]
