"""Labelled images, and augmented batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seeking.checkpointing.fingerprint import classes_digest, digest, sample
from seeking.data.augment import Augmentation, center_crop
from seeking.data.batched import in_batches
from seeking.data.encoded import Encoded
from seeking.training.rng import derive_seed

MAX_STATISTICS_IMAGES = 10_000
"""About how many images the mean and standard deviation are computed from, to keep it fast when images are decoded on
demand."""


@dataclass(frozen=True)
class Images:
    """Images of one size with their labels.

    Attributes:
        pixels: uint8, ``[count, channels, height, width]``; a tensor, or decoded on demand.
        labels: int64, ``[count]``.
    """

    pixels: Tensor | Encoded
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def decoded(self, device: torch.device) -> "Images":
        """The same images, decoded to a tensor on a device."""
        pixels = self.pixels.decoded() if isinstance(self.pixels, Encoded) else self.pixels
        return Images(pixels.to(device), self.labels.to(device))

    def select(self, rows: Tensor) -> "Images":
        """The images in these rows, int64."""
        rows = rows.to(self.labels.device)
        pixels = self.pixels.select(rows) if isinstance(self.pixels, Encoded) else self.pixels[rows]
        return Images(pixels, self.labels[rows])

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, for pixels in [0, 1]; large data sets are subsampled.

        The deviation of a constant channel is given as 1, so that it can be divided by.
        """
        indices = torch.arange(0, len(self), max(1, len(self) // MAX_STATISTICS_IMAGES))
        means, deviations = [], []
        values = torch.arange(256, dtype=torch.float64) / 255
        for channel in self.pixels[indices].cpu().unbind(1):
            counts = torch.bincount(channel.flatten(), minlength=256).double()
            mean = (counts * values).sum() / counts.sum()
            means.append(float(mean))
            deviation = float(((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt())
            deviations.append(deviation if counts.count_nonzero() > 1 else 1.0)
        return tuple(means), tuple(deviations)


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Normalized batches of images.

    The random augmentation of an image depends only on the seed, the epoch and the image. It does not depend on the
    batch, the process or the worker.

    Args:
        images: the images.
        mean: one value for each channel, for pixels in [0, 1].
        std: one value for each channel, for pixels in [0, 1].
        size: height and width of the images in a batch; the images' own size by default. Larger images are center
            cropped, unless the augmentation crops them at random.
        augmentation: random augmentation; none by default.
        seed: seed of the augmentation.

    Attributes:
        draws: what the augmentation has drawn for each image in this epoch, by name.
    """

    stateless = True
    """An item does not depend on the items loaded before it."""

    classes: tuple[str, ...] = ()
    """Names of the classes, if they are known."""

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
        """Draw the random augmentation of every image for this epoch."""
        if self.augmentation:
            generator = torch.Generator().manual_seed(derive_seed(self.seed) + epoch)  # The same on every device.
            draws = self.augmentation.draw(len(self.images), generator)
            self.draws = {name: values.to(self.device) for name, values in draws.items()}

    def images_in_progress(self) -> str:
        """Names of the images that the workers decoded last, for error messages."""
        return self.images.pixels.images_in_progress() if isinstance(self.images.pixels, Encoded) else ""

    def content_fingerprint(self) -> dict[str, Any]:
        """What identifies the images, wherever they are kept."""
        return {
            "count": len(self.images),
            "size": [*self.images.pixels.shape[1:]],
            "labels": digest(self.images.labels),
            "sample": digest(sample(self.images.pixels)),
            "classes": classes_digest(self.classes),
        }

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels, labels = self.__getitems__([index])
        return pixels[0], labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch: float32 ``[len(indices), channels, height, width]`` and int64 labels."""
        selected = torch.tensor(indices).to(self.device)
        pixels, labels = self.images.pixels[selected], self.images.labels[selected]
        if not self.augmentation:
            return (center_crop(pixels, self.size) - self.mean).div_(self.std), labels
        draws = {name: values[selected] for name, values in self.draws.items()}
        pixels = self.augmentation.color_jitter(self.augmentation.crop_and_flip(pixels, draws, self.size), draws)
        return self.augmentation.random_erase((pixels - self.mean).div_(self.std), draws), labels


def loader(
    data: Batches, batch_size: int, *, shuffle_seed: int | None = None, workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """A DataLoader that fetches whole batches from the data set.

    Args:
        data: the data set.
        batch_size: images in a batch.
        shuffle_seed: if given, reshuffle every epoch and drop the last, incomplete batch.
        workers: worker processes; used only for images that are decoded on demand.
    """
    options: dict[str, Any] = {}
    if isinstance(data.images.pixels, Encoded):
        options = {"num_workers": workers, "pin_memory": torch.accelerator.is_available()}
    return in_batches(data, batch_size, shuffle_seed=shuffle_seed, **options)
