"""Batches from a loader, moved to the device."""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import BatchSampler

from seeking.errors import LoadingError, SeekingError
from seeking.termination import EndedBySignal
from seeking.training.interrupts import Stopped
from seeking.training.loaders import Loader, components
from seeking.training.micro_batches import MicroBatches, Part
from seeking.training.progress import Progress
from seeking.training.rng import RunRandomState
from seeking.training.stream import StreamPosition
from seeking.training.workers import starting_workers

MAX_CHARACTERS = 2000
"""Of the message of an error that data raise."""


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
    with _loading_errors(loader.dataset), starting_workers():
        parts = loader.start(skip, first=first, whole_length=whole_length)
    return _move_to_device(parts, device, loader)


def rest_of_epoch(
    loader: Loader,
    accumulate: int,
    progress: Progress,
    random: RunRandomState,
    position: StreamPosition | None,
    notify: Callable[[str], None],
) -> Iterator[MicroBatches]:
    """The remaining batches of this epoch, in groups that make one step.

    Args:
        loader: a prepared loader.
        accumulate: batches in a group.
        progress: progress of the run; read again before each group.
        random: random states of the run, with that of the start of the epoch. Neither skipping batches nor loading ones
            that do not come changes them.
        position: in a loader without a length.
        notify: called with a message if skipping takes time.

    Raises:
        LoadingError: a batch cannot be loaded.
    """
    skip, device = progress.step_in_epoch * accumulate, random.generators.device
    if progress.epoch_complete or progress.done:
        return
    if position:
        position.begin()
    random.start_batch()
    try:
        if loader.positioned or skip:
            place = f"batch {skip} of epoch {progress.epoch + 1}"
            notify(f"going on at {place}, where the loader stands" if loader.positioned else f"skipping to {place}")
            with random.generators.preserved():
                # Those that were drawn at the start of the pass, such as seeds of workers.
                random.generators.load_state_dict(random.epoch_start)
                parts = draw(loader, device, 0 if loader.positioned else skip, whole_length=False)
            loader.positioned = False
        else:
            random.epoch_start = random.generators.state_dict()
            parts = draw(loader, device, whole_length=False)
        begun = False
        while not (progress.epoch_complete or progress.done) and (group := [*itertools.islice(parts, accumulate)]):
            if position and not begun:
                position.begun()
            begun = True
            yield MicroBatches(group, loader.processes)
            random.start_batch()
            if position:
                position.mark()
        if position and not begun:  # It was at its end already.
            position.begun()
    except (Exception, Stopped):
        random.undo_batch()
        raise
    if not progress.epoch_complete:  # The data or the run are at their end.
        return
    with random.generators.preserved():
        next(parts, None)  # Lets the loader come to its end, as a plain loop does.


def _move_to_device(parts: Iterator[Part], device: torch.device, loader: Loader) -> Iterator[Part]:
    with _loading_errors(loader.dataset):
        with starting_workers(sheltered=loader.processes > 1):  # Some loaders start them at their first batch.
            first = list(itertools.islice(parts, 1))
        for part in itertools.chain(first, parts):
            yield dataclasses.replace(part, batch=send_to_device(part.batch, device))


@contextlib.contextmanager
def _loading_errors(dataset: Any) -> Iterator[None]:
    try:
        yield
    except EndedBySignal:
        raise
    except SystemExit as error:  # It would end the run as if all were well.
        raise LoadingError(f"cannot load the next batch: the data called sys.exit({error.code!r})") from error
    except Exception as error:
        text = _in_one_line(error)
        in_progress = getattr(dataset, "images_in_progress", str)()
        if in_progress and "DataLoader worker" in text:
            text += f"; the workers were at {in_progress}"
        raise LoadingError(f"cannot load the next batch: {text}") from error


def _in_one_line(error: Exception) -> str:
    """The kind and the message of an error; of one from a worker, whose message has its traceback in it, the cause."""
    name, lines = type(error).__name__, str(error).strip().splitlines()
    if any(line.startswith("Original Traceback") for line in lines):
        start = max(number for number, line in enumerate(lines) if line.endswith("Traceback (most recent call last):"))
        frames = itertools.takewhile(lambda line: line.startswith(" "), lines[start + 1 :])
        lines = lines[start + 1 + len(list(frames)) :]
        lines[:1] = [re.sub(rf"^([\w.]+\.)?{name}(: |$)", "", line) for line in lines[:1]]
    text = " ".join(line.strip() for line in lines if line.strip())
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]} …"
    return text if isinstance(error, SeekingError) else f"{name}: {text}".removesuffix(": ")


def last_size(loader: Any) -> int | None:
    """Samples in the last batch of an epoch, if batches are made in the usual way."""
    sampler = getattr(loader, "batch_sampler", None)
    if type(sampler) is not BatchSampler or sampler.drop_last:
        return None
    try:
        return (len(sampler.sampler) - 1) % sampler.batch_size + 1  # type: ignore[arg-type]
    except TypeError:
        return None


def set_epoch(epoch: int, *loaders: Loader | None) -> None:
    """Set the epoch of loaders, their samplers and their data sets."""
    for loader in loaders:
        for receiver in components(loader):
            if hasattr(receiver, "set_epoch"):
                receiver.set_epoch(epoch)
