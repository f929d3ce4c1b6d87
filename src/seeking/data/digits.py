"""The handwritten digits of scikit-learn, which are there without a download."""

import psutil
import torch

from seeking.data.config import DataConfig
from seeking.data.hold_out import split_off
from seeking.data.images import Images
from seeking.data.split_use import NOT_USED, SplitUse, held_out_source
from seeking.errors import SeekingError
from seeking.internals import digits


def select_digits(config: DataConfig) -> tuple[Images, Images, tuple[str, ...], tuple[str, str], list[SplitUse]]:
    """The training and the test images and the rest, as ``select_images`` gives them for other data.

    Raises:
        SeekingError: they do not fit into memory in the size that is asked for.
    """
    train, test, classes = _digits(config.stored_size, config.channels or 1)
    sources = "the other images", "every fifth image"
    unused: list[SplitUse] = []
    if config.validation:
        unused.append(SplitUse(NOT_USED, sources[1], None, len(test)))
        sources = sources[0], held_out_source(config.validation, sources[0])
        train, test = split_off(train, round(len(train) * config.validation), 1, config)
    return _subset(train, config.max_train_samples), _subset(test, config.max_eval_samples), classes, sources, unused


def _digits(size: int | None, channels: int) -> tuple[Images, Images, tuple[str, ...]]:
    """1,797 grayscale images of 8×8 pixels; every fifth is a test image."""
    images, classes = digits()
    pixels = (torch.from_numpy(images) * (255 / 16)).round().to(torch.uint8)[:, None].repeat(1, channels, 1, 1)
    if size:
        needed, free = len(pixels) * channels * size**2, psutil.virtual_memory().available
        if needed > free:
            raise SeekingError(
                f"digits of {size}×{size} pixels take {needed / 1e9:,.0f} GB of memory, and {free / 1e9:,.0f} GB are "
                "free; give a smaller image_size"
            )
        from torchvision.transforms.v2.functional import resize

        pixels = resize(pixels, [size, size])
    labels = torch.from_numpy(classes).long()
    test = torch.arange(len(labels)) % 5 == 4
    return Images(pixels[~test], labels[~test]), Images(pixels[test], labels[test]), tuple(map(str, range(10)))


def _subset(images: Images, count: int | None) -> Images:
    if count is None:
        return images
    return images.select(torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count])
