"""Training batches, drawn from a user's loader."""

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import PartialState
from accelerate.data_loader import DataLoaderShard, skip_first_batches
from accelerate.utils import send_to_device
from torch.utils.data import IterableDataset

from seeking.errors import LoadingError, SeekingError
from seeking.internals import is_worker_handler, raw_loader, skip_indices, synchronize_generators
from seeking.training.progress import Progress
from seeking.training.rng import RunRandomState


def draw(loader: Any, device: torch.device, skip: int = 0) -> Iterator[Any]:
    """One pass over a loader, each batch drawn when it is asked for and moved to the device.

    This works on any loader. ``torchdata``'s ``StatefulDataLoader`` keeps the position in the data as well, but would
    have to take the place of the user's own.

    Never one ahead: what the data draw from the global generators in this process then comes between the same two
    training steps in a resumed run as in the run that it resumes.

    Args:
        loader: as ``Accelerator.prepare`` gives it.
        device: to move batches to.
        skip: batches that are passed over. Only their indices are drawn where the data are loaded by index, in this
            process or from a data set with an attribute ``stateless`` that is true; elsewhere they are loaded and
            thrown away, since the random state of workers depends on what they have loaded.

    Raises:
        LoadingError: while batches are drawn: the data raise something, or a worker has died.
    """
    # accelerate's own way is to load one batch ahead; it is only needed where one process loads for several.
    if isinstance(loader, DataLoaderShard) or PartialState().num_processes == 1:
        synchronize_generators(loader)
        loader = raw_loader(loader)
        if skip and getattr(getattr(loader, "dataset", None), "stateless", False) and loader.num_workers:
            loader, skip = skip_first_batches(loader, skip), 0
    iterator = iter(loader)
    if is_worker_handler(signal.getsignal(signal.SIGCHLD)):
        # It would raise in the midst of a step when a worker dies. The iterator finds out by itself, between two.
        with contextlib.suppress(ValueError):  # Outside the main thread.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    by_index = not isinstance(getattr(loader, "dataset", None), IterableDataset)
    if not (by_index and getattr(loader, "num_workers", None) == 0 and skip_indices(iterator, skip)):
        next(itertools.islice(iterator, skip, skip), None)
    return _moved(iterator, device, getattr(loader, "dataset", None))


def rest_of_epoch(
    loader: Any,
    accumulate: int,
    progress: Progress,
    random: RunRandomState,
    notify: Callable[[str], None],
) -> Iterator[list[Any]]:
    """The rest of this epoch's batches, in groups of those that make one step.

    Args:
        loader: as ``Accelerator.prepare`` gives it.
        accumulate: batches in a group.
        progress: of the run; read anew before each group.
        random: from which the epoch began; what is drawn to find the place does not count.
        notify: told what takes time.

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
        notify(f"finding batch {skip} of epoch {progress.epoch + 1}")
        with random.generators.preserved():
            random.generators.load_state_dict(random.epoch_start)
            batches = draw(loader, device, skip)
    while progress.step_in_epoch < progress.epoch_length and (group := list(itertools.islice(batches, accumulate))):
        yield group


def _moved(iterator: Iterator[Any], device: torch.device, dataset: Any) -> Iterator[Any]:
    try:
        for batch in iterator:
            yield send_to_device(batch, device)
    except Exception as error:
        # What a worker raises brings its whole traceback as text.
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
        raise LoadingError(f"the next batch cannot be loaded: {text}") from error


def set_epoch(epoch: int, *loaders: Any) -> None:
    """Tell loaders and their data sets which epoch it is."""
    for loader in loaders:
        # With several processes accelerate tells the sampler alone; augmentation must know, too.
        receivers: list[Any] = [loader, getattr(loader, "dataset", None)]
        for receiver in receivers:
            if hasattr(receiver, "set_epoch"):
                receiver.set_epoch(epoch)
