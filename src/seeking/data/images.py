"""Labelled images, and augmented batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seeking.data.augment import Augmentation, centre
from seeking.data.encoded import Encoded
from seeking.training.rng import derive_seed

MAX_MEASURED_IMAGES = 10_000
"""Images of which the statistics are taken, about; they must not take long where images are not in memory."""


@dataclass(frozen=True)
class Images:
    """Images of one size with their labels.

    Attributes:
        pixels: uint8, ``[count, channels, height, width]``, decoded or not.
        labels: int64, ``[count]``.
    """

    pixels: Tensor | Encoded
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def decoded(self, device: torch.device) -> "Images":
        """These images as tensors on a device."""
        pixels = self.pixels.decoded() if isinstance(self.pixels, Encoded) else self.pixels
        return Images(pixels.to(device), self.labels.to(device))

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, for pixels between 0 and 1; of many images, of some."""
        at = torch.arange(0, len(self), max(1, len(self) // MAX_MEASURED_IMAGES))
        means, deviations = [], []
        values = torch.arange(256, dtype=torch.float64) / 255
        for channel in self.pixels[at].cpu().unbind(1):
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
        size: height and width of the images in the batches, of which the middle is taken unless they are cropped at
            random; the images' own if not given.
        augmentation: none if not given.
        seed: of the draws.
    """

    stateless = True
    """What an image becomes does not depend on what has been loaded before."""

    def __init__(
        self,
        images: Images,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        size: tuple[int, int] | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.images = images
        self.device = images.labels.device
        self.mean = torch.tensor(mean, dtype=torch.float32, device=self.device).view(1, -1, 1, 1) * 255
        self.std = torch.tensor(std, dtype=torch.float32, device=self.device).view(1, -1, 1, 1) * 255
        height, width = images.pixels.shape[2:]
        self.size = size or (height, width)
        self.augmentation = augmentation
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the augmentation of every image for this epoch."""
        if self.augmentation:
            generator = torch.Generator().manual_seed(derive_seed(self.seed) + epoch)  # The same on every device.
            draws = self.augmentation.draw(len(self.images), generator)
            self._draws = {name: drawn.to(self.device) for name, drawn in draws.items()}

    def under_way(self) -> str:
        """The images that workers have decoded last, in words."""
        return self.images.pixels.under_way() if isinstance(self.images.pixels, Encoded) else ""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels, labels = self.__getitems__([index])
        return pixels[0], labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch: float32 ``[len(indices), channels, height, width]`` and int64 labels."""
        at = torch.tensor(indices).to(self.device)
        pixels, labels = self.images.pixels[at], self.images.labels[at]
        if not self.augmentation:
            return (centre(pixels, self.size) - self.mean).div_(self.std), labels
        draws = {name: drawn[at] for name, drawn in self._draws.items()}
        pixels = self.augmentation.colour(self.augmentation.frame(pixels, draws, self.size), draws)
        return self.augmentation.random_erase((pixels - self.mean).div_(self.std), draws), labels


def loader(
    data: Batches, batch_size: int, *, shuffle_seed: int | None = None, workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """A DataLoader over whole batches: in another order each epoch and without the last, incomplete batch if there is
    a seed to shuffle by; else in order, to the end. Only images that are decoded as they are needed take workers."""
    options: dict[str, Any] = {"collate_fn": _unchanged}
    if isinstance(data.images.pixels, Encoded):
        options |= {"num_workers": workers, "pin_memory": torch.accelerator.is_available()}
    if shuffle_seed is None:
        return DataLoader(data, batch_size, **options)
    sampler = SeedableRandomSampler(data, data_seed=derive_seed(shuffle_seed))  # It adds the epoch.
    return DataLoader(data, batch_size, sampler=sampler, drop_last=True, **options)


def _unchanged(batch: Any) -> Any:
    return batch
