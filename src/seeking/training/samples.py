"""How many samples and targets are in a batch of any form."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from seeking.internals import tree_map_only
from seeking.training.targets import counted_targets
from seeking.weights_map import leaves_in


def sample_count(batch: Any) -> int:
    """Number of samples in a batch; 1 if that cannot be told.

    It is the length of a list of samples, and else of the first part that is a tensor or an array. If all parts are
    lists of one length, which were not made by stacking, it is that length: lists of images of different sizes and of
    their labels. Else it is the length of the first tensor or array in any part.
    """
    if lists_samples(batch):
        return len(batch)
    lengths = (length for part in _parts(batch) if (length := _length(part)) is not None)
    if (first := next(lengths, None)) is not None:
        return first
    if listed := listed_samples(batch):
        return listed
    return next((length for leaf in leaves_in(batch) if (length := _length(leaf)) is not None), 1)


def _length(value: Any) -> int | None:
    """The length of a tensor or an array; None of all else, and of scalars."""
    if not isinstance(value, Tensor | np.ndarray) or not value.ndim:
        return None
    return value.size(0) if isinstance(value, Tensor) else len(value)  # Nested tensors have no len().


def lists_samples(batch: Any) -> bool:
    """Whether a batch is a list of mappings or dataclasses, one for each sample.

    They have the same fields, where inputs and targets have others, and at least one of them does not look stacked.
    """
    if not isinstance(batch, list | tuple) or hasattr(batch, "_fields"):
        return False
    fields = {_fields(part) for part in batch}
    return len(fields) == 1 and None not in fields and not all(map(_is_stacked, batch))


def _fields(value: Any) -> tuple[Any, ...] | None:
    """The type and the names of what a mapping or a dataclass holds; None of all else."""
    if isinstance(value, Mapping):
        return type(value), *sorted(map(str, value))
    return (type(value),) if hasattr(value, "__dataclass_fields__") else None


def _is_stacked(value: Any) -> bool:
    """Whether there are only tensors of one length in it."""
    lengths = {*map(_length, leaves_in(value))}
    return len(lengths) == 1 and None not in lengths


def listed_samples(batch: Any) -> int:
    """Number of samples in a batch all of whose parts are lists of one entry for each sample; 0 if they are not."""
    if _is_stacked(batch):
        return 0
    listed = {len(part) if isinstance(part, list | tuple) else 0 for part in _parts(batch)}
    return listed.pop() if len(listed) == 1 else 0


def _parts(batch: Any) -> list[Any]:
    return [*batch.values()] if isinstance(batch, Mapping) else [*batch] if isinstance(batch, list | tuple) else []


def target_count(batch: Any) -> int:
    """Number of targets that count in the mean loss of a batch; number of samples if they are not integers."""
    counted = counted_targets(batch)
    return sample_count(batch) if counted is None else counted


def first_sample(batch: Any) -> Any:
    """A batch with only the first sample: of each tensor or array that has one entry for each sample."""
    if lists_samples(batch):
        return batch[:1]
    count = sample_count(batch)
    arrays = (Tensor, np.ndarray)
    return tree_map_only(arrays, lambda array: array[:1] if array.shape[:1] == (count,) else array, batch)
