"""Labelled images in memory, augmented by the batch but image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.data_loader import SeedableRandomSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


@dataclass(frozen=True)
class Images:
    """Images of one size with their labels.

    Attributes:
        pixels: uint8, ``[count, channels, height, width]``.
        labels: int64, ``[count]``.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, for pixels between 0 and 1."""
        means, deviations = [], []
        values = torch.arange(256, dtype=torch.float64) / 255
        for channel in self.pixels.unbind(1):
            counts = torch.bincount(channel.flatten(), minlength=256).double()
            mean = (counts * values).sum() / counts.sum()
            means.append(float(mean))
            deviations.append(float(((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()))
        return tuple(means), tuple(deviations)


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Normalised batches of images.

    The draws of augmentation depend on the seed, the epoch and the image alone: not on the batch that it falls into,
    nor on the process or worker that loads it.

    Args:
        images: the images.
        mean: of each channel, for pixels between 0 and 1.
        std: likewise.
        padding: black pixels added on each side before a random crop back to size; 0 for no crop.
        flip: whether every other image, at random, is mirrored.
        seed: of the draws.
    """

    def __init__(
        self,
        images: Images,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        padding: int = 0,
        flip: bool = False,
        seed: int = 0,
    ) -> None:
        self.images = images
        self.mean = torch.tensor(mean).view(1, -1, 1, 1) * 255
        self.std = torch.tensor(std).view(1, -1, 1, 1) * 255
        self.padding = padding
        self.flip = flip
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the augmentation of every image for this epoch."""
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        count = len(self.images)
        self._shift = torch.randint(0, 2 * self.padding + 1, (count, 2), generator=draw)
        self._mirrored = torch.rand(count, generator=draw) < 0.5 if self.flip else torch.zeros(count, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels, labels = self.__getitems__([index])
        return pixels[0], labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch: float32 ``[len(indices), channels, height, width]`` and int64 labels."""
        at = torch.tensor(indices)
        pixels = self.images.pixels[at]
        if self.padding or self.flip:
            height, width = pixels.shape[-2:]
            pixels = F.pad(pixels, [self.padding] * 4)
            columns = torch.arange(width)
            columns = torch.where(self._mirrored[at, None], width - 1 - columns, columns) + self._shift[at, 1:]
            rows = torch.arange(height) + self._shift[at, :1]
            image, channel = torch.arange(len(at)).view(-1, 1, 1, 1), torch.arange(pixels.shape[1]).view(1, -1, 1, 1)
            pixels = pixels[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
        return (pixels - self.mean) / self.std, self.images.labels[at]


def loader(data: Batches, batch_size: int, *, shuffle_seed: int | None = None) -> DataLoader[tuple[Tensor, Tensor]]:
    """A DataLoader over whole batches: in another order each epoch and without the last, incomplete batch if there is
    a seed to shuffle by; else in order, to the end."""
    if shuffle_seed is None:
        return DataLoader(data, batch_size, collate_fn=_whole)
    # Seeds of neighbouring runs must not give each other's epochs: the sampler adds the epoch to the seed.
    sampler = SeedableRandomSampler(data, data_seed=shuffle_seed * 1_000_003)
    return DataLoader(data, batch_size, sampler=sampler, drop_last=True, collate_fn=_whole)


def _whole(batch: Any) -> Any:
    return batch
