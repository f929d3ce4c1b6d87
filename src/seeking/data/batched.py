"""Loaders that fetch whole batches."""

from typing import Any

from accelerate.data_loader import SeedableRandomSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seeking.training.rng import derive_seed


def in_batches(
    data: Dataset[tuple[Tensor, Tensor]], batch_size: int, *, shuffle_seed: int | None = None, **options: Any
) -> DataLoader[tuple[Tensor, Tensor]]:
    """A DataLoader of a data set whose ``__getitems__`` gives whole batches.

    Args:
        data: the data set.
        batch_size: samples in a batch.
        shuffle_seed: if given, reshuffle every epoch and drop the last, incomplete batch.
        options: further options of the DataLoader.
    """
    options = {"collate_fn": _identity, **options}
    if shuffle_seed is None:
        return DataLoader(data, batch_size, **options)
    # The sampler adds the epoch to its seed.
    sampler = SeedableRandomSampler(data, data_seed=derive_seed(shuffle_seed))
    return DataLoader(data, batch_size, sampler=sampler, drop_last=True, **options)


def _identity(batch: Any) -> Any:
    return batch
