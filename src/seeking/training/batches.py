"""Training batches from a user's loader."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from accelerate import PartialState
from accelerate.data_loader import DataLoaderShard, skip_first_batches
from accelerate.utils import send_to_device
from torch.utils.data import BatchSampler, IterableDataset

from seeking.errors import LoadingError, SeekingError
from seeking.internals import raw_loader, skip_indices, synchronize_generators
from seeking.training.interrupts import Stopped
from seeking.training.progress import Progress
from seeking.training.rng import RunRandomState
from seeking.training.workers import starting_workers


def draw(loader: Any, device: torch.device, skip: int = 0) -> Iterator[Any]:
    """Iterate once over a loader; each batch is loaded when it is requested, and moved to the device.

    This works with any loader. ``torchdata``'s ``StatefulDataLoader`` also keeps the position in the data, but it would
    have to replace the user's loader.

    Batches are not loaded ahead. So random numbers that the data draw in this process are drawn between the same two
    training steps in a resumed run as in an uninterrupted one.

    Args:
        loader: a loader prepared by ``Accelerator.prepare``.
        device: the device to move batches to.
        skip: number of batches to skip. If the data are indexed in this process, or the data set has a true attribute
            ``stateless``, only the indices are drawn. Otherwise the batches are loaded and discarded, since the random
            state of the workers depends on what they have loaded.

    Raises:
        LoadingError: during iteration: the data raise an error, or a worker has died.
    """
    # accelerate's loaders load one batch ahead; this is only needed if one process loads for several.
    if isinstance(loader, DataLoaderShard) or PartialState().num_processes == 1:
        synchronize_generators(loader)
        loader = raw_loader(loader)
        if skip and getattr(getattr(loader, "dataset", None), "stateless", False) and loader.num_workers:
            loader, skip = skip_first_batches(loader, skip), 0
    with starting_workers():
        iterator = iter(loader)
    by_index = not isinstance(getattr(loader, "dataset", None), IterableDataset)
    if not (by_index and getattr(loader, "num_workers", None) == 0 and skip_indices(iterator, skip)):
        next(itertools.islice(iterator, skip, skip), None)
    return loaded(iterator, device, getattr(loader, "dataset", None))


def rest_of_epoch(
    loader: Any,
    accumulate: int,
    progress: Progress,
    random: RunRandomState,
    notify: Callable[[str], None],
) -> Iterator[list[Any]]:
    """The remaining batches of this epoch, in groups that make one step.

    Args:
        loader: a loader prepared by ``Accelerator.prepare``.
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
        batches = draw(loader, device)
    else:
        notify(f"skipping to batch {skip} of epoch {progress.epoch + 1}")
        with random.generators.preserved():
            random.generators.load_state_dict(random.epoch_start)
            batches = draw(loader, device, skip)
    try:
        while progress.step_in_epoch < progress.epoch_length and (group := list(itertools.islice(batches, accumulate))):
            yield group
    except (Exception, Stopped):
        if not progress.step_in_epoch:  # What the loader has drawn is drawn again.
            random.generators.load_state_dict(random.epoch_start)
        raise


def loaded(batches: Iterable[Any], device: torch.device, dataset: Any) -> Iterator[Any]:
    """Move batches to the device.

    Args:
        batches: as they come from a loader.
        device: the device to move them to.
        dataset: of the loader, to name what it was reading.

    Raises:
        LoadingError: during iteration: the data raise an error, or a worker has died.
    """
    try:
        iterator = iter(batches)
        if inspect.isgenerator(iterator):  # It starts the workers when its first batch is requested.
            with starting_workers(sheltered=PartialState().num_processes > 1):
                first = list(itertools.islice(iterator, 1))
            iterator = itertools.chain(first, iterator)
        for batch in iterator:
            yield send_to_device(batch, device)
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


def last_size(loader: Any) -> int | None:
    """Samples in the last batch of an epoch, if batches are made in the usual way."""
    sampler = getattr(loader, "batch_sampler", None)
    if type(sampler) is not BatchSampler or sampler.drop_last:
        return None
    try:
        return (len(sampler.sampler) - 1) % sampler.batch_size + 1  # type: ignore[arg-type]
    except TypeError:
        return None


def set_epoch(epoch: int, *loaders: Any) -> None:
    """Set the epoch of loaders and their data sets."""
    for loader in loaders:
        # With several processes, accelerate sets the epoch of the sampler only; augmentation needs it, too.
        receivers: list[Any] = [loader, getattr(loader, "dataset", None)]
        for receiver in receivers:
            if hasattr(receiver, "set_epoch"):
                receiver.set_epoch(epoch)
