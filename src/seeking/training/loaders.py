"""A user's loader, iterated as it is. With several processes, each of its batches is split between them."""

import collections
import copy
import functools
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard, SeedableRandomSampler, SkipBatchSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from seeking.checkpointing.fingerprint import of_dataset
from seeking.distributed.processes import from_first_process, scatter
from seeking.errors import RunWarning, SeekingError
from seeking.internals import (
    copied_loader,
    ended_by_item,
    is_split_by_node,
    iterates_by_torch,
    own_iterators,
    skip_indices,
)
from seeking.training.micro_batches import Part, split
from seeking.training.rng import RandomState
from seeking.training.samples import sample_count


class Loader:
    """A loader whose batches are taken as they are: in a single process, or split between processes by the user.

    Args:
        loader: the loader.
        processes: number of processes.
    """

    def __init__(self, loader: Any, processes: int = 1) -> None:
        self.base_dataloader = loader  # Checkpoints know the generators of the data by this name.
        self.processes = processes
        self._kept: _Kept | None = None
        self._warned = False

        self.positioned = False
        """Whether the loader stands where a run was stopped, so that no batches need to be skipped."""

    splits = False
    """Whether each batch is split between the processes."""

    @property
    def length(self) -> int | None:
        """Number of batches; None if it is not known."""
        try:
            return len(self.base_dataloader)
        except (TypeError, NotImplementedError):
            return None

    @property
    def dataset(self) -> Any:
        """The data set of the loader, if it has one."""
        return getattr(self.base_dataloader, "dataset", None)

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Which data these are, as ``fingerprint`` has it."""
        return of_dataset(getattr(self.base_dataloader, "dataset", self.base_dataloader))

    def start(self, skip: int = 0, *, first: int | None = None, whole_length: bool = True) -> Iterator[Part]:
        """Start a pass over the data; all processes must do this, and take the same number of batches.

        Args:
            skip: number of batches to skip. If the data are indexed in this process, or the data set has a true
                attribute ``stateless``, only the indices are drawn. Otherwise the batches are loaded and discarded,
                since the random state of the workers depends on what they have loaded.
            first: take so many batches only, and leave the loader as if none had been taken.
            whole_length: take all batches, even if there are more than the length of the loader says.
        """
        batches = self.batches(skip, first, whole_length)
        return (Part(batch, sample_count(batch) * self.processes, 1 / self.processes) for batch in batches)

    def batches(self, skip: int, first: int | None, whole_length: bool) -> Iterator[Any]:
        """The batches of the loader in this process; see ``start``. Skips at once, and loads when asked for a batch."""
        if iterates_by_torch(self.base_dataloader):
            iterator = _iterate(self.base_dataloader, skip)
            if first is not None:
                return itertools.islice(iterator, first)
        elif first is not None:
            return self._look_at(first)
        elif self._kept is not None:
            iterator, self._kept = self._kept.take(), None
            next(itertools.islice(iterator, skip, skip), None)
        else:
            iterator = _iterate(self.base_dataloader, skip)
        length = self.length
        return iterator if whole_length or length is None else self._limited(iterator, length - skip)

    def _look_at(self, count: int) -> Iterator[Any]:
        random = RandomState(torch.device("cpu"), self.base_dataloader)
        before = random.state_dict()
        iterator = self._kept.take() if self._kept else _nexts(iter(_untouched(self.base_dataloader)))
        batches = [*itertools.islice(iterator, count)]
        if own_iterators(self.base_dataloader):  # It continues where it is left.
            self._kept = _Kept(itertools.chain(batches, iterator), random, before, random.state_dict())
        return iter(batches)

    def _limited(self, iterator: Iterator[Any], count: int) -> Iterator[Any]:
        yield from itertools.islice(iterator, count)
        for batch in iterator:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"the loader gives more batches than its length of {len(self.base_dataloader)}; schedules count on "
                    "that length, so each epoch ends there. Correct its __len__",
                    RunWarning,
                    stacklevel=2,
                )
            if own_iterators(self.base_dataloader):
                self._kept = _Kept(itertools.chain([batch], iterator))
            return


@dataclass(frozen=True)
class _Kept:
    """The rest of a pass over a loader, with the first batches, which have been looked at.

    Looking left the random state as it was; what it had drawn counts as drawn when the batches are taken.
    """

    iterator: Iterator[Any]
    random: RandomState | None = None
    before: Any = None
    after: Any = None

    def take(self) -> Iterator[Any]:
        if self.random and self.random.state_dict() == self.before:
            self.random.load_state_dict(self.after)
        return self.iterator


class SplitByIndex(Loader):
    """A plain ``DataLoader``, of which each process loads its part of each batch."""

    splits = True

    def __init__(self, loader: Any, processes: int, index: int) -> None:
        self._indices = _Indices(loader.batch_sampler, processes, index)
        # In order, so that all processes have their parts of one batch at the same time.
        super().__init__(copied_loader(loader, batch_sampler=self._indices, in_order=True), processes)

    def start(self, skip: int = 0, *, first: int | None = None, whole_length: bool = True) -> Iterator[Part]:
        """See ``Loader``."""
        return self._parts(self.batches(skip, first, whole_length), skip)

    def _parts(self, batches: Iterator[Any], skipped: int) -> Iterator[Part]:
        for batch in batches:
            while skipped:
                self._indices.sizes.popleft()
                skipped -= 1
            yield Part(batch, *self._indices.sizes.popleft())


class Dispatched(Loader):
    """Any other loader: the first process iterates over it, and sends each other process its part of each batch."""

    splits = True

    def __init__(self, loader: Any, processes: int, index: int) -> None:
        super().__init__(loader, processes)
        self._index = index

    def start(self, skip: int = 0, *, first: int | None = None, whole_length: bool = True) -> Iterator[Part]:
        """See ``Loader``."""
        batches: Iterator[Any] = iter(())
        failure: Exception | None = None
        if self._index == 0:
            try:
                batches = self.batches(skip, first, whole_length)
            except Exception as error:  # For all processes to know.
                failure = error

        def parts() -> Sequence[Part | None]:
            if failure:
                raise failure
            for batch in batches:
                return split(batch, self.processes)
            return [None] * self.processes

        return iter(lambda: scatter(parts), None)


class _Indices:
    """This process's part of each batch of indices of a batch sampler."""

    def __init__(self, batch_sampler: Any, processes: int, index: int) -> None:
        self.batch_sampler = batch_sampler
        self.sizes: collections.deque[tuple[int, float, int]] = collections.deque()
        """Samples, share and copies of the batches that were drawn but have not arrived yet."""
        self._processes, self._index = processes, index

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[Any]]:
        self.sizes.clear()
        sampler = getattr(self.batch_sampler, "sampler", None)
        batches: Iterable[Any] = self.batch_sampler
        if type(batches) is not BatchSampler or type(sampler) not in (SeedableRandomSampler, SequentialSampler):
            # Others may draw differently in each process.
            batches = from_first_process(lambda: [*itertools.islice(self.batch_sampler, len(self) + 1)])
        for batch in batches:
            indices, processes = list(batch), self._processes
            samples = len(indices)
            if samples < processes:
                self.sizes.append((samples, 1 / processes, processes))
                yield indices
                continue
            own = slice(samples * self._index // processes, samples * (self._index + 1) // processes)
            self.sizes.append((samples, len(indices[own]) / samples, 1))
            yield indices[own]


def prepare(loader: Any, name: str, seed: int, processes: int, index: int) -> Loader:
    """Prepare a loader for one of the processes.

    Args:
        loader: any iterable that starts anew each time, such as a ``DataLoader``; left as it is.
        name: name of the argument, for error messages.
        seed: seed of the order of a ``DataLoader`` that shuffles without a generator of its own.
        processes: number of processes.
        index: index of this process.

    Raises:
        SeekingError: it cannot be iterated over, can be gone through once only, or its sampler splits the data between
            other processes.
    """
    if type(loader) is DataLoaderShard and processes == 1:
        loader = loader.base_dataloader  # Loads no batch ahead.
    _check_restarts(loader, name)
    if processes > 1 and _split_by_user(loader, name, processes, index):
        return Loader(loader, processes)
    if iterates_by_torch(loader):
        loader = _seeded(loader, seed)
        if processes > 1 and loader.batch_sampler is not None and not isinstance(loader.dataset, IterableDataset):
            return SplitByIndex(loader, processes, index)
    return Loader(loader) if processes == 1 else Dispatched(loader, processes, index)


def components(loader: Any) -> list[Any]:
    """A loader, the loaders in it, and their data sets and samplers."""
    seen = {id(loader): loader}
    for part in (queue := [loader]):
        for name in ("base_dataloader", "loader", "dataset", "sampler", "batch_sampler"):
            component = getattr(part, name, None)
            if component is not None and id(component) not in seen:
                seen[id(component)] = component
                if name != "dataset":
                    queue.append(component)
    return [*seen.values()]


def _seeded(loader: Any, seed: int) -> Any:
    """A copy of a plain loader, whose order depends only on the seed and the epoch if it has no generator."""
    sampler = loader.sampler
    if (
        type(loader.batch_sampler) is not BatchSampler
        or type(sampler) is not RandomSampler
        or sampler.generator is not None
    ):
        return copied_loader(loader)
    seeded = SeedableRandomSampler(
        sampler.data_source, replacement=sampler.replacement, num_samples=sampler.num_samples, data_seed=seed
    )
    batch_sampler = BatchSampler(seeded, loader.batch_size, loader.drop_last)
    return copied_loader(loader, sampler=seeded, batch_sampler=batch_sampler)


def _iterate(loader: Any, skip: int) -> Iterator[Any]:
    by_index = iterates_by_torch(loader) and not isinstance(loader.dataset, IterableDataset)
    stateless = by_index and getattr(loader.dataset, "stateless", False)
    if skip and stateless and loader.num_workers and loader.batch_sampler is not None:
        loader, skip = copied_loader(loader, batch_sampler=SkipBatchSampler(loader.batch_sampler, skip)), 0
    iterator: Iterator[Any] = iter(loader)
    skipped = by_index and not loader.num_workers and skip_indices(iterator, skip)
    iterator = _nexts(iterator, by_index)
    if not skipped:
        next(itertools.islice(iterator, skip, skip), None)
    return iterator


def _nexts(iterator: Iterator[Any], by_index: bool = False) -> Iterator[Any]:
    """The rest of an iterator, which ``for`` might start anew; an item of data that are indexed cannot end it."""
    while True:
        try:
            batch = next(iterator)
        except StopIteration as stop:
            if by_index and ended_by_item(stop):
                raise SeekingError(
                    "an item of the data set raised StopIteration, which would end the epoch early; if its source has "
                    "come to an end, give the data set a shorter length, and raise another error if it has failed"
                ) from stop
            return
        yield batch


def _untouched(loader: Any) -> Any:
    """A shallow copy of a loader and of the loaders in it, unless they have an iterator already."""
    if own_iterators(loader):
        return loader
    try:
        twin = copy.copy(loader)
        for name, value in vars(twin).items():
            if name == "loader" or isinstance(value, DataLoader):
                vars(twin)[name] = _untouched(value)
    except Exception:  # Then it is iterated itself.
        return loader
    return twin


def _check_restarts(loader: Any, name: str) -> None:
    kind = type(loader).__name__
    if isinstance(loader, Mapping) or (isinstance(loader, Sequence) and loader and isinstance(loader[0], DataLoader)):
        raise SeekingError(
            f"{name} is a {kind} of loaders; give one loader, such as over a ConcatDataset of their data"
        )
    if isinstance(loader, Dataset) and not hasattr(type(loader), "__iter__"):
        raise SeekingError(
            f"{name} is a {kind}, a data set and no batches; give DataLoader(data_set, batch_size=...), or "
            "batch_size=None if its items are batches"
        )
    if _is_of_the_hub(loader):
        warnings.warn(
            f"{name} is a {kind}, each item of which is taken for a batch; if they are samples, give a DataLoader",
            RunWarning,
            stacklevel=2,
        )
    if isinstance(loader, DataLoader | Sequence) and not own_iterators(loader):
        return
    try:
        iterator = iter(loader)
    except TypeError as error:
        raise SeekingError(f"{name} is a {kind}; give a DataLoader, or a list of batches") from error
    if iterator is not loader and not any(iterator is own for own in own_iterators(loader)):
        return
    state = getattr(loader, "__dict__", {})
    next(iterator, None)
    before = dict(state)
    if iter(loader) is iterator and all(before.get(key) is value for key, value in state.items()):
        raise SeekingError(
            f"{name} is a {kind} that can be gone through once only; give a loader that starts anew "
            "for each epoch, such as a DataLoader, or an object whose __iter__ is a generator function"
        )


def _is_of_the_hub(loader: Any) -> bool:
    """Whether this is a data set of ``datasets`` that has a length; streams of it may be in batches."""
    return type(loader).__module__.partition(".")[0] == "datasets" and hasattr(loader, "__len__")


def _split_by_user(loader: Any, name: str, processes: int, index: int) -> bool:
    """Whether each process has been given a loader of its own part of the data."""
    for part in components(loader):
        replicas, rank = getattr(part, "num_replicas", None), getattr(part, "rank", index)
        if isinstance(replicas, int) and replicas > 1:
            if (replicas, rank) != (processes, index):
                raise SeekingError(
                    f"{name}: its {type(part).__name__} is for process {rank} of {replicas}, but this is process "
                    f"{index} of {processes}"
                )
            return True
    dataset = getattr(loader, "dataset", None)
    return type(loader) in (DataLoaderShard, DataLoaderDispatcher) or is_split_by_node(dataset)
