"""Data sets by name or path."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch

from seeking.data.augment import Augmentation
from seeking.data.config import DataConfig
from seeking.data.digits import select_digits
from seeking.data.encoded import Encoded
from seeking.data.folders import shown
from seeking.data.hold_out import split_off
from seeking.data.images import Batches, Images
from seeking.data.labels import NAMED_CLASSES
from seeking.data.select import select_images
from seeking.data.split_use import SET_ASIDE, SplitUse
from seeking.data.unreadable import readable
from seeking.distributed.processes import cores, local_process_count, this_process
from seeking.errors import RunWarning, SeekingError

MAX_WORKERS_PER_CORE = 16
"""More take minutes to start and are of no use, even where all of them wait for a disk."""


@dataclass(frozen=True)
class ImageData:
    """A data set ready for training.

    Attributes:
        splits: what each split of the data is used for.
        size: height and width of the images in a batch.
        location: where the images are kept, for messages.
        workers: worker processes that decode images on demand.
        held_out: training images that are held out for conditions.
    """

    name: str
    train: Images
    test: Images
    classes: tuple[str, ...]
    splits: tuple[SplitUse, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    augmentation: Augmentation
    location: str
    workers: int
    held_out: Images | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.train.pixels.shape[1], *self.size

    def batches(self, seed: int) -> tuple[Batches, Batches]:
        """Training data with augmentation, and test data without."""
        train = Batches(self.train, self.mean, self.std, size=self.size, augmentation=self.augmentation, seed=seed)
        return train, self.as_they_are(self.test)

    def held_out_batches(self) -> Batches | None:
        """The held-out training data, without augmentation; None if there are none."""
        return self.as_they_are(self.held_out) if self.held_out else None

    def as_they_are(self, images: Images) -> Batches:
        """Images of this data set, without augmentation."""
        return Batches(images, self.mean, self.std, size=self.size)


def load(config: DataConfig, sharing: int = 1) -> ImageData:
    """Load a data set and, if it fits, decode it into memory.

    Args:
        config: which data set, and how to load it.
        sharing: number of runs on this machine that share its memory and cores.

    Raises:
        SeekingError: the data set does not exist, is empty, has no images or labels, has a label out of range, or has
            images of several sizes.
    """
    select = select_digits if config.data == "digits" else select_images
    train, test, classes, sources, unused = select(config)
    _check_labels({"training": train, "test": test}, classes, config)
    encoded = {
        name: images.pixels.files
        for name, images in (("training", train), ("test", test))
        if isinstance(images.pixels, Encoded)
    }
    sized = all(len(files.unreadable) < len(files) for files in encoded.values())
    if sized and train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise SeekingError(
            f"{config.data}: training images are {list(train.pixels.shape[1:])}, test images "
            f"{list(test.pixels.shape[1:])}; give image_size to make them the same"
        )
    train, test, location = _move(train, test, config, sharing)
    if encoded:
        train, test = readable({"training": train, "test": test}, encoded, config.on_bad_image)
    train, set_aside = _hold_out(train, config)
    if set_aside:
        unused.append(SplitUse.of(SET_ASIDE, f"{len(set_aside)} of {sources[0]}", set_aside.labels))
    _warn_of_lost_classes(train, test, classes, config)
    mean, std = _normalization(train, config)
    height, width = (config.image_size,) * 2 if config.image_size else train.pixels.shape[2:]
    return ImageData(
        name=config.data,
        train=train,
        test=test,
        classes=classes,
        splits=(
            SplitUse.of("training", sources[0], train.labels),
            SplitUse.of("test", sources[1], test.labels),
            *unused,
        ),
        mean=mean,
        std=std,
        size=(height, width),
        augmentation=_augmentation(width, config),
        location=location,
        workers=_workers(config.workers, sharing, used=isinstance(train.pixels, Encoded)),
        held_out=set_aside,
    )


def _workers(wanted: int | None, sharing: int, used: bool) -> int:
    """How many worker processes decode images: as many as are wanted, but not so many that the machine cannot start
    them."""
    if wanted is None:
        return max(1, min(8, cores() // (sharing * local_process_count())))
    most = MAX_WORKERS_PER_CORE * cores()
    if used and wanted > most:
        warnings.warn(
            f"workers is {wanted}, which is too many for the {cores()} cores of this machine; {most} are started",
            RunWarning,
            stacklevel=3,
        )
    return min(wanted, most)


def _check_labels(splits: Mapping[str, Images], classes: Sequence[str], config: DataConfig) -> None:
    """Refuse splits without images, and labels that are none of the classes."""
    for split, images in splits.items():
        if not len(images):
            raise SeekingError(f"{config.data}: the {split} split is empty")
        missing = images.labels == -1
        if missing.any():
            raise SeekingError(
                f"{config.data}: {int(missing.sum()):,} of {len(images):,} {split} images have no label (null or -1), "
                f"such as image {int(missing.nonzero()[0])}; remove them, or name another column with label_column"
            )
        out_of_range = (images.labels < 0) | (images.labels >= len(classes))
        if out_of_range.any():
            row = int(out_of_range.nonzero()[0])
            raise SeekingError(
                f"{config.data}: label {int(images.labels[row])} of {split} image {row} is out of range; "
                f"there are {len(classes)} classes, numbered from 0"
            )


def _normalization(train: Images, config: DataConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: those that are given, or else those of the training images.

    Raises:
        SeekingError: those that are given are not of as many channels, or a deviation is not above 0.
    """
    mean, std = train.statistics()
    mean, std = config.mean or mean, config.std or std
    channels = train.pixels.shape[1]
    if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
        raise SeekingError(
            f"{config.data}: mean {list(mean)} and std {list(std)} must have one number, std above 0, "
            f"for each of {channels} channels"
        )
    return tuple(mean), tuple(std)


def _augmentation(width: int, config: DataConfig) -> Augmentation:
    """The augmentation that is asked for; by default, random crops with a padding of an eighth of the width."""
    padding = config.crop_padding
    if padding is None:
        padding = width // 8 if config.crop_scale is None else 0
    return Augmentation(
        padding=padding,
        flip=config.data != "digits" if config.flip is None else config.flip,
        scale=config.crop_scale,
        jitter=config.color_jitter,
        erase=config.random_erasing,
    )


def _move(train: Images, test: Images, config: DataConfig, sharing: int) -> tuple[Images, Images, str]:
    """Move both splits to where loading is fastest, and name the location."""
    in_memory = config.in_memory
    size = (train.pixels.shape.numel() + test.pixels.shape.numel()) * sharing
    if in_memory is None:  # Each process keeps its own copy.
        in_memory = size * local_process_count() <= psutil.virtual_memory().available // 2
    if not in_memory and isinstance(train.pixels, Encoded):
        for images in (train, test) if config.on_bad_image == "skip" else ():
            if isinstance(images.pixels, Encoded):
                images.pixels.check()
        return train, test, "decoded on demand"
    device = this_process().device
    memory = getattr(torch.get_device_module(device), "mem_get_info", None)
    if device.type == "cpu" or memory is None or size > memory(device)[0] // 4:
        device = torch.device("cpu")
    train, test = train.decoded(device), test.decoded(device)
    return train, test, f"decoded in the memory of {'this machine' if device.type == 'cpu' else device}"


def _hold_out(train: Images, config: DataConfig) -> tuple[Images, Images | None]:
    if not config.held_out:
        return train, None
    if config.held_out >= len(train):
        raise SeekingError(
            f"held_out is {config.held_out}, and {config.data} has {len(train)} training images; hold out fewer"
        )
    kept, held = split_off(train, config.held_out, 2, config)
    if len(held) < config.held_out:
        raise SeekingError(
            f"held_out is {config.held_out}, and {config.data} has {len(train)} training images, of which {len(held)} "
            "can be held out such that each class keeps one; hold out fewer"
        )
    return kept, held


def _warn_of_lost_classes(train: Images, test: Images, classes: tuple[str, ...], config: DataConfig) -> None:
    """Tell of classes that a subset, or images that were left out, leave without training images."""
    left, tested = ({*images.labels.tolist()} for images in (train, test))
    lost = [classes[label] for label in sorted(tested - left)]
    if lost and (config.max_train_samples or config.on_bad_image == "skip"):
        warnings.warn(
            f"{config.data}: {len(lost):,} of the {len(tested):,} classes of the test images have no images among the "
            f"{len(train):,} that are trained on: {shown(lost, NAMED_CLASSES)}",
            RunWarning,
            stacklevel=3,
        )
