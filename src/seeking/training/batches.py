"""Batches from a loader, moved to the device."""

import contextlib
import dataclasses
import itertools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.utils import send_to_device

from seeking.errors import LoadingError, SeekingError
from seeking.internals import is_worker_handler
from seeking.training.loaders import Loader, components
from seeking.training.micro_batches import MicroBatches, Part
from seeking.training.progress import Progress
from seeking.training.rng import RunRandomState


def draw(
    loader: Loader, device: torch.device, skip: int = 0, *, first: int | None = None, whole_length: bool = True
) -> Iterator[Part]:
    """Iterate once over a loader; each batch is loaded when it is requested, and moved to the device.

    This works with any loader. ``torchdata``'s ``StatefulDataLoader`` also keeps the position in the data, but it would
    have to replace the user's loader.

    Batches are not loaded ahead. So random numbers that the data draw in this process are drawn between the same two
    training steps in a resumed run as in an uninterrupted one.

    Args:
        loader: a prepared loader.
        device: the device to move batches to.
        skip: number of batches to skip.
        first: take so many batches only, and leave the loader as if none had been taken.
        whole_length: take all batches, even if there are more than the length of the loader says.

    Raises:
        LoadingError: the data raise an error, or a worker has died.
    """
    with _loading_errors(loader.dataset):
        parts = loader.start(skip, first=first, whole_length=whole_length)
    _reset_worker_handler()
    return _move_to_device(parts, device, loader.dataset)


def rest_of_epoch(
    loader: Loader,
    accumulate: int,
    progress: Progress,
    random: RunRandomState,
    notify: Callable[[str], None],
) -> Iterator[MicroBatches]:
    """The remaining batches of this epoch, in groups that make one step.

    Args:
        loader: a prepared loader.
        accumulate: batches in a group.
        progress: progress of the run; read again before each group.
        random: random states of the run, with that of the start of the epoch. Skipping batches does not change them.
        notify: called with a message if skipping takes time.

    Raises:
        LoadingError: a batch cannot be loaded.
    """
    skip, device = progress.step_in_epoch * accumulate, random.generators.device
    if progress.step_in_epoch >= progress.epoch_length:
        return
    if not skip:
        random.epoch_start = random.generators.state_dict()
        parts = draw(loader, device, whole_length=False)
    else:
        notify(f"skipping to batch {skip} of epoch {progress.epoch + 1}")
        with random.generators.preserved():
            random.generators.load_state_dict(random.epoch_start)
            parts = draw(loader, device, skip, whole_length=False)
    while progress.step_in_epoch < progress.epoch_length and (group := list(itertools.islice(parts, accumulate))):
        yield MicroBatches(group, loader.processes)
    with random.generators.preserved():
        next(parts, None)  # Lets the loader come to its end, as a plain loop does.


def _move_to_device(parts: Iterator[Part], device: torch.device, dataset: Any) -> Iterator[Part]:
    with _loading_errors(dataset):
        for number, part in enumerate(parts):
            if not number:
                _reset_worker_handler()
            yield dataclasses.replace(part, batch=send_to_device(part.batch, device))


def _reset_worker_handler() -> None:
    """Remove PyTorch's signal handler, which would raise in the middle of a step when a worker dies.

    The iterator notices it between steps.
    """
    if is_worker_handler(signal.getsignal(signal.SIGCHLD)):
        with contextlib.suppress(ValueError):  # Outside the main thread.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@contextlib.contextmanager
def _loading_errors(dataset: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # An error from a worker contains its traceback as text.
        text = str(error).strip()
        text = (
            text.splitlines()[-1].removeprefix("seeking.errors.SeekingError: ")
            if "Original Traceback" in text
            else text
        )
        text = text if isinstance(error, SeekingError) else f"{type(error).__name__}: {text}"
        in_progress = getattr(dataset, "images_in_progress", str)()
        if in_progress and "DataLoader worker" in text:
            text += f"; the workers were at {in_progress}"
        raise LoadingError(f"cannot load the next batch: {text}") from error


def set_epoch(epoch: int, *loaders: Loader | None) -> None:
    """Set the epoch of loaders, their samplers and their data sets."""
    for loader in loaders:
        for receiver in components(loader):
            if hasattr(receiver, "set_epoch"):
                receiver.set_epoch(epoch)
