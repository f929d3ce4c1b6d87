"""Training batches, drawn from a user's loader."""

import contextlib
import itertools
import signal
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import PartialState
from accelerate.data_loader import DataLoaderShard, skip_first_batches
from accelerate.utils import send_to_device, synchronize_rng_states
from torch.utils.data import IterableDataset

from seeking.errors import LoadingError, SeekingError


def draw(loader: Any, device: torch.device, skip: int = 0) -> Iterator[Any]:
    """One pass over a loader, each batch drawn when it is asked for and moved to the device.

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
        if getattr(loader, "rng_types", None) is not None:
            synchronize_rng_states(loader.rng_types, loader.synchronized_generator)
        loader = getattr(loader, "base_dataloader", loader)
        if skip and getattr(getattr(loader, "dataset", None), "stateless", False) and loader.num_workers:
            loader, skip = skip_first_batches(loader, skip), 0
    iterator = iter(loader)
    if getattr(signal.getsignal(signal.SIGCHLD), "__module__", "").startswith("torch.utils.data"):
        # It would raise in the midst of a step when a worker dies. The iterator finds out by itself, between two.
        with contextlib.suppress(ValueError):  # Outside the main thread.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    by_index = not isinstance(getattr(loader, "dataset", None), IterableDataset)
    if by_index and getattr(loader, "num_workers", None) == 0 and hasattr(iterator, "_next_index"):
        for _ in range(skip):
            iterator._next_index()
    else:
        next(itertools.islice(iterator, skip, skip), None)
    return _moved(iterator, device, getattr(loader, "dataset", None))


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
        at_work = getattr(dataset, "under_way", str)()
        if at_work and "DataLoader worker" in text:
            text += f"; the workers were at {at_work}"
        raise LoadingError(f"the next batch cannot be loaded: {text}") from error
