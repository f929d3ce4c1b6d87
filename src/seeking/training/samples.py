"""How many samples and targets are in a batch of any form."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from seeking.internals import tree_map_only
from seeking.training.targets import counted_targets
from seeking.weights_map import leaves_in


def sample_count(batch: Any) -> int:
    """Number of samples in a batch; 1 if that cannot be told.

    It is the length of a list of samples, and else of the first part that is a tensor. If all parts are lists of one
    length, which were not made by stacking, it is that length: lists of images of different sizes and of their labels.
    Else it is the length of the first tensor in any part.
    """
    if lists_samples(batch):
        return len(batch)
    for part in _parts(batch):
        if isinstance(part, Tensor) and part.ndim:
            return part.size(0)  # Nested tensors have no len().
    if listed := listed_samples(batch):
        return listed
    return next((leaf.size(0) for leaf in leaves_in(batch) if isinstance(leaf, Tensor) and leaf.ndim), 1)


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
    lengths = {leaf.size(0) if isinstance(leaf, Tensor) and leaf.ndim else None for leaf in leaves_in(value)}
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
    """A batch with only the first sample: of each tensor that has one entry for each sample."""
    if lists_samples(batch):
        return batch[:1]
    count = sample_count(batch)
    return tree_map_only(Tensor, lambda tensor: tensor[:1] if tensor.shape[:1] == (count,) else tensor, batch)
