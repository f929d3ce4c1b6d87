"""Batches split between processes, and the batches that make one step."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from seeking.distributed.mean_loss import mean_over_processes
from seeking.errors import SeekingError
from seeking.training.samples import listed_samples, lists_samples, sample_count
from seeking.weights_map import leaves_in


@dataclass(frozen=True)
class Part:
    """A batch of the loader, or this process's part of it.

    Attributes:
        batch: the samples of this process.
        samples: number of samples of the whole batch.
        share: share of the whole batch that this process stands for.
        copies: number of processes that have these samples; all of them if there are fewer samples than processes.
    """

    batch: Any
    samples: int
    share: float = 1.0
    copies: int = 1


class MicroBatches(list[Any]):
    """The micro-batches of one step.

    Attributes:
        samples: their number of samples, over all processes.
        weights: weight of each micro-batch's mean loss, such that the mean over all processes of the weighted sum is
            the mean over all samples; after ``weigh``, over all targets that count.
        weighed: whether that was called.
    """

    def __init__(self, parts: Sequence[Part], processes: int) -> None:
        super().__init__(part.batch for part in parts)
        self.samples = sum(part.samples for part in parts)
        self.weights = [processes * part.share * part.samples / max(1, self.samples) for part in parts]
        self.weighed = False
        self._processes, self._copies = processes, [part.copies for part in parts]

    def weigh(self, targets: Callable[[Any], float], device: torch.device) -> None:
        """Weigh each micro-batch by its number of targets, once; all processes must call this.

        A single process leaves those without any out. If there are none at all, the weights stay as they are.

        Args:
            targets: their number in a micro-batch.
            device: of this process.
        """
        if self.weighed or len(self) * self._processes == 1:
            return
        self.weighed = True
        counts = [targets(batch) / copies for batch, copies in zip(self, self._copies, strict=True)]
        total = float(sum(counts))
        if self._processes > 1:
            total = self._processes * mean_over_processes(torch.tensor([total], device=device))[0]
        if not total:
            return
        weights = [self._processes * count / total for count in counts]
        kept = [number for number, weight in enumerate(weights) if weight or self._processes > 1]
        self[:], self.weights = [self[number] for number in kept], [weights[number] for number in kept]

    @classmethod
    def of(cls, batch: Sequence[Any], processes: int) -> "MicroBatches":
        """These batches; of the same number of samples in every process, if they do not come from a loader."""
        if isinstance(batch, cls):
            return batch
        return cls([Part(each, sample_count(each) * processes, 1 / processes) for each in batch], processes)


def split(batch: Any, processes: int) -> list[Part]:
    """Split a batch between the processes.

    Raises:
        SeekingError: it holds something else than tensors of one length, and lists.
    """
    samples = sample_count(batch)
    if samples < processes:
        return [Part(send_to_device(batch, "cpu"), samples, 1 / processes, processes)] * processes
    whole = lists_samples(batch)
    listed = whole or listed_samples(batch) == samples
    bounds = [samples * number // processes for number in range(processes + 1)]
    return [
        Part(_slice(batch, samples, slice(start, end), listed, top=not whole), samples, (end - start) / samples)
        for start, end in itertools.pairwise(bounds)
    ]


def _slice(value: Any, samples: int, part: slice, listed: bool, top: bool = False) -> Any:
    if isinstance(value, Tensor):
        if not value.ndim:
            return value.cpu()
        if value.layout == torch.strided and not value.is_nested and len(value) == samples:
            return value[part].cpu().clone()  # Otherwise the whole storage would be sent.
    elif isinstance(value, Mapping):
        return type(value)({key: _slice(item, samples, part, listed) for key, item in value.items()})  # type: ignore[call-arg]
    elif isinstance(value, list | tuple) and not isinstance(value, PackedSequence):
        if not top and len(value) == samples and (listed or _has_samples(value)):
            return send_to_device(value[part], "cpu")
        items = [_slice(item, samples, part, listed) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    elif value is None or isinstance(value, str | bytes | int | float):
        return value
    kind = f"a {type(value).__name__}"
    if isinstance(value, Tensor):
        plain = value.layout == torch.strided and not value.is_nested
        kind = f"a tensor of shape {list(value.shape)}" if plain else "a sparse or nested tensor"
    raise SeekingError(
        f"a batch of {samples} samples holds {kind}, which cannot be split between processes; give a plain DataLoader, "
        "or one with a DistributedSampler"
    )


def _has_samples(values: Sequence[Any]) -> bool:
    """Whether a list, as long as there are samples, has an entry for each; else its entries are parts of the batch.

    Mappings are samples. Where it is open, as of as many tensors as each of them has entries, they are parts.
    """
    if all(isinstance(value, Mapping) for value in values):
        return True
    kinds = {(type(value), value.ndim if isinstance(value, Tensor) else 0) for value in values}
    if len(kinds) > 1:
        return not any(isinstance(value, Tensor | Mapping | list | tuple) for value in values)
    return not all(isinstance(leaf, Tensor) and leaf.shape[:1] == (len(values),) for leaf in leaves_in(values))
