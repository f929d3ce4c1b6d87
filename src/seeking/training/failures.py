"""Errors in the midst of a run: what has been trained is saved, and the error says where it happened."""

import contextlib
from collections.abc import Callable, Iterator

from seeking.errors import DivergedError, add_detail
from seeking.training.run import Run


@contextlib.contextmanager
def in_batch(run: Run, end_batch: Callable[[], None], undo_batch: Callable[[], None]) -> Iterator[None]:
    """Inside, an algorithm trains on a batch.

    If it fails after a model has taken its step, the batch is ended, so that the step is not taken again.

    Args:
        run: the run, with an empty row.
        end_batch: called then; with several processes it is not, since the others may be within their step.
        undo_batch: called if it fails before, to let the batch draw the same random numbers again.
    """
    try:
        yield
    except DivergedError:  # It says where, and no step was taken.
        raise
    except Exception as error:
        add_detail(error, f"in batch {run.progress.step_in_epoch + 1} of epoch {run.progress.epoch + 1}")
        if not run.row:
            undo_batch()
        elif not run.stepper.requests.several:
            end_batch()
        raise


@contextlib.contextmanager
def saved_on_error(run: Run, save: Callable[[], bool]) -> Iterator[None]:
    """Save the run before an error is passed on.

    It is not saved if its models are bad (``DivergedError``) or half updated, or if only one of several processes
    knows of the error, since saving needs all of them.

    Args:
        run: the run.
        save: saves it; returns whether it has a folder.
    """
    try:
        yield
    except DivergedError:
        raise
    except Exception as error:
        requests = run.stepper.requests
        if not run.stepper.updating and (requests.failed or not requests.several):
            with contextlib.suppress(Exception):  # The first error is the one to tell.
                if save():
                    add_detail(error, f"the run is saved at step {run.progress.step}, to be resumed")
        raise
