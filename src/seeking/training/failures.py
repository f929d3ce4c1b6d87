"""Errors in the midst of a run: what has been trained is saved, and the error says where it happened."""

import contextlib
from collections.abc import Callable, Iterator

from seeking.errors import INCOMPATIBLE_STATE_ERRORS, DivergedError, SeekingError, add_detail
from seeking.training.run import Run


@contextlib.contextmanager
def in_batch(run: Run, end_batch: Callable[[], None], undo_batch: Callable[[], None]) -> Iterator[None]:
    """Inside, an algorithm trains on a batch.

    If it fails after a model has taken its step, the batch is ended, so that the step is not taken again.

    Args:
        run: the run, with an empty row.
        end_batch: called then; with several processes only if all of them know of the error, since the others may be
            within their step.
        undo_batch: called if it fails before, to let the batch draw the same random numbers again.
    """
    try:
        yield
    except DivergedError:  # It says where, and no step was taken.
        raise
    except Exception as error:
        add_detail(error, f"in batch {run.progress.step_in_epoch + 1} of epoch {run.progress.epoch + 1}")
        requests = run.stepper.requests
        if not run.row:
            undo_batch()
        elif requests.failed or not requests.several:
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


@contextlib.contextmanager
def first_step(run: Run, resumed: str | None) -> Iterator[None]:
    """Inside, a run is trained; if it was resumed and a model's first step fails, the error says so.

    Args:
        run: the run.
        resumed: path of the run folder that it was resumed from, if it was.

    Raises:
        SeekingError: the state does not fit the models; of several processes, if all know of the error.
    """
    try:
        yield
    except INCOMPATIBLE_STATE_ERRORS as error:
        if resumed is None or all(learner.stepped for learner in run.learners.values()):
            raise
        requests = run.stepper.requests
        if requests.several and not requests.failed:  # It may be that another process has ended.
            add_detail(error, f"{resumed}: in the first step after resuming")
            raise
        reason = f"{type(error).__name__}: {error}"
        raise SeekingError(f"{resumed}: the first step after resuming fails ({reason})") from error
