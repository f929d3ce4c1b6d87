"""Where one tensor of the base model lies in the motivated model."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from seeking.errors import SeekingError
from seeking.weights_map.index import Index

Shape = tuple[int, ...]
Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Entry:
    """Where one base tensor lies in the motivated model.

    ``target[entry.mesh()]`` is the base tensor.

    Attributes:
        target: name of the motivated model's tensor.
        index: for each dimension of the base tensor, its positions in the target.
        target_shape: shape of the target.
        origin: what decided it: ``name``, ``structure``, ``rule: …``, ``user``, or ``not reached`` by any forward
            pass.

    Raises:
        SeekingError: an index for each dimension is missing, leaves the dimension, or names a position twice.
    """

    target: str
    index: tuple[Index, ...]
    target_shape: Shape
    origin: str = "name"

    def __post_init__(self) -> None:
        if len(self.index) != len(self.target_shape):
            raise SeekingError(
                f"{self.target}: {len(self.index)} indices for {len(self.target_shape)} dimensions; give one for each"
            )
        for dim, (index, size) in enumerate(zip(self.index, self.target_shape, strict=True)):
            if any(run[-1] >= size or run[0] < 0 for run in index.runs):
                raise SeekingError(f"{self.target}, dimension {dim}: index {index} leaves the dimension's size {size}")
            if index.repeats():
                raise SeekingError(f"{self.target}, dimension {dim}: index {index} names a position twice")

    @property
    def shape(self) -> Shape:
        """Shape of the base tensor."""
        return tuple(map(len, self.index))

    @property
    def whole(self) -> bool:
        """Whether the base tensor is all of the target, in order."""
        return self.shape == self.target_shape and all(
            index.covers(size) for index, size in zip(self.index, self.target_shape, strict=True)
        )

    def blocks(self) -> Iterator[tuple[Slices, Slices]]:
        """The entry as rectangular blocks: slices of the base tensor and the same of the target."""
        for pairs in itertools.product(*(tuple(index.slices()) for index in self.index)):
            yield tuple(base for base, _ in pairs), tuple(target for _, target in pairs)

    def block_count(self) -> int:
        """How many blocks ``blocks`` yields."""
        return math.prod(len(index.runs) for index in self.index)

    def mesh(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """One int64 index tensor for each dimension; together they broadcast to the base tensor's shape."""
        rank = len(self.index)
        return tuple(
            index.tensor(device).view([-1 if d == dim else 1 for d in range(rank)])
            for dim, index in enumerate(self.index)
        )
