"""Data sets by name or path."""

import logging
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from seeking.data.augment import Augmentation
from seeking.data.encoded import Encoded
from seeking.data.images import Batches, Images
from seeking.distributed.processes import cores, local_process_count, this_process
from seeking.errors import SeekingError, unknown

LABEL_COLUMNS = ("label", "labels", "fine_label")
TEST_SPLITS = ("test", "validation", "valid", "val")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they are presented."""

    data: str = "digits"
    """digits (scikit-learn's handwritten digits, nothing to download), a name on the Hugging Face hub such as
    uoft-cs/cifar10, a folder of parquet files, or a folder of images (train/CLASS/*.png)."""
    image_size: int | None = None
    """Side in pixels to which images are resized and cropped; their own size if not given."""
    image_column: str | None = None
    """Column of the images, where there are several."""
    label_column: str | None = None
    """Column of the labels, where it is not called label, labels or fine_label."""
    crop_padding: int | None = None
    """Padding of the random crop, in pixels; an eighth of the image's side if not given, 0 for no crop."""
    crop_scale: float | None = None
    """Random resized crops instead, as is usual for larger images: the least share of the image that they take, such
    as 0.08. With image_size, images are kept an eighth larger than that, and test images are cropped to their
    middle."""
    flip: bool | None = None
    """Mirror images at random; on if not given, but not for digits."""
    color_jitter: float = 0.0
    """Random brightness, contrast and saturation, each times a number within so much of 1, such as 0.4."""
    random_erasing: float = 0.0
    """Share of the images of which a random rectangle is erased."""
    mean: tuple[float, ...] | None = None
    """Of each channel, for pixels between 0 and 1; the training images' own if not given."""
    std: tuple[float, ...] | None = None
    """Likewise."""
    max_train_samples: int | None = None
    """Train on so many images, drawn once for all seeds."""
    max_eval_samples: int | None = None
    """Evaluate on so many images, likewise."""
    validation: float | None = None
    """Hold out this share of the training images, the same for all seeds, and evaluate on them instead of the test
    images."""
    in_memory: bool | None = None
    """Decode all images once and keep them in memory, the device's if they fill at most a quarter of what is free
    there; else workers decode them as they are needed. If not given, whatever fits into half of the free memory is
    kept."""
    workers: int | None = None
    """Processes that decode images as they are needed; if not given, this process' share of the cores, at most 8."""

    def __post_init__(self) -> None:
        for name in ("image_size", "crop_padding", "max_train_samples", "max_eval_samples", "workers"):
            least = 0 if name in ("crop_padding", "workers") else 1
            value = getattr(self, name)
            if value is not None and value < least:
                raise SeekingError(f"{name} is {value}; it must be {least} or more")
        if self.validation is not None and not 0 < self.validation < 1:
            raise SeekingError(f"validation is {self.validation}; it is a share of the images, between 0 and 1")
        Augmentation(scale=self.crop_scale, jitter=self.color_jitter, erase=self.random_erasing)  # Refuses the rest.

    @property
    def stored_size(self) -> int | None:
        """Side to which images are resized and cropped as they are decoded."""
        if self.image_size is None or self.crop_scale is None:
            return self.image_size
        return round(self.image_size / 0.875)


@dataclass(frozen=True)
class ImageData:
    """A data set ready for training.

    Attributes:
        size: height and width of the images in batches.
        place: where the images are, in words.
        workers: processes that decode them as they are needed.
    """

    name: str
    train: Images
    test: Images
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    augmentation: Augmentation
    place: str
    workers: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.train.pixels.shape[1], *self.size

    def batches(self, seed: int) -> tuple[Batches, Batches]:
        """Augmented training data and plain test data."""
        train = Batches(self.train, self.mean, self.std, size=self.size, augmentation=self.augmentation, seed=seed)
        return train, Batches(self.test, self.mean, self.std, size=self.size)


def load(config: DataConfig, sharing: int = 1) -> ImageData:
    """Find a data set and, if it fits, decode it into memory.

    Args:
        config: which, and how.
        sharing: runs on this machine, side by side, each of which has images in memory or workers of its own.

    Raises:
        SeekingError: no such data set, or it has no images, no labels, nothing in it, a label out of range, or images
            of several sizes.
    """
    if config.data == "digits":
        train, test, classes = _digits(config.stored_size)
        if config.validation:
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
            out = round(len(train) * config.validation)
            train, test = (Images(train.pixels[part], train.labels[part]) for part in (order[out:], order[:out]))
        train, test = _drawn(train, config.max_train_samples), _drawn(test, config.max_eval_samples)
    else:
        train, test, classes = _from_hub_or_folder(config)
    for split, images in (("training", train), ("test", test)):
        if not len(images):
            raise SeekingError(f"{config.data}: the {split} split is empty")
        wrong = (images.labels < 0) | (images.labels >= len(classes))
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise SeekingError(
                f"{config.data}: label {int(images.labels[row])} of {split} image {row} is out of range; "
                f"there are {len(classes)} classes, numbered from 0"
            )
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise SeekingError(
            f"{config.data}: training images are {list(train.pixels.shape[1:])}, test images "
            f"{list(test.pixels.shape[1:])}; give image_size to make them the same"
        )
    train, test, place = _placed(train, test, config.in_memory, sharing)
    mean, std = train.statistics()
    mean, std = config.mean or mean, config.std or std
    channels = train.pixels.shape[1]
    if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
        raise SeekingError(
            f"{config.data}: mean {list(mean)} and std {list(std)} must have one number, std above 0, "
            f"for each of {channels} channels"
        )
    height, width = (config.image_size,) * 2 if config.image_size else train.pixels.shape[2:]
    padding = config.crop_padding
    if padding is None:
        padding = width // 8 if config.crop_scale is None else 0
    return ImageData(
        name=config.data,
        train=train,
        test=test,
        classes=classes,
        mean=tuple(mean),
        std=tuple(std),
        size=(height, width),
        augmentation=Augmentation(
            padding=padding,
            flip=config.data != "digits" if config.flip is None else config.flip,
            scale=config.crop_scale,
            jitter=config.color_jitter,
            erase=config.random_erasing,
        ),
        place=place,
        workers=max(1, min(8, cores() // (sharing * local_process_count())))
        if config.workers is None
        else config.workers,
    )


def _placed(train: Images, test: Images, in_memory: bool | None, sharing: int) -> tuple[Images, Images, str]:
    """Both splits where training gets at them fastest, and where that is."""
    size = (train.pixels.shape.numel() + test.pixels.shape.numel()) * sharing
    if in_memory is None:  # Each process keeps images of its own.
        in_memory = size * local_process_count() <= psutil.virtual_memory().available // 2
    if not in_memory and isinstance(train.pixels, Encoded):
        return train, test, "decoded as they are needed"
    device = this_process().device
    memory = getattr(torch.get_device_module(device), "mem_get_info", None)
    if device.type == "cpu" or memory is None or size > memory(device)[0] // 4:
        device = torch.device("cpu")
    train, test = train.decoded(device), test.decoded(device)
    return train, test, f"decoded in the memory of {'this machine' if device.type == 'cpu' else device}"


def _digits(size: int | None) -> tuple[Images, Images, tuple[str, ...]]:
    """1,797 real images of 8 by 8 grey pixels; every fifth is for the test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (torch.from_numpy(bunch.images) * (255 / 16)).round().to(torch.uint8)[:, None]
    if size:
        from torchvision.transforms.v2.functional import resize

        pixels = resize(pixels, [size, size])
    labels = torch.from_numpy(bunch.target).long()
    test = torch.arange(len(labels)) % 5 == 4
    return Images(pixels[~test], labels[~test]), Images(pixels[test], labels[test]), tuple(map(str, range(10)))


def _drawn(images: Images, most: int | None) -> Images:
    if most is None:
        return images
    kept = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:most]
    return Images(images.pixels[kept], images.labels[kept])


def _from_hub_or_folder(config: DataConfig) -> tuple[Images, Images, tuple[str, ...]]:
    import datasets

    name = config.data
    if Path(name).is_file() or (name.startswith((".", "/", "~")) and not Path(name).expanduser().exists()):
        raise SeekingError(f"data set {name}: no such folder")
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # What goes wrong there is said below.
    try:
        splits = datasets.load_dataset(str(Path(name).expanduser()) if Path(name).expanduser().exists() else name)
    except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError, ConnectionError) as error:
        if "/" in name:
            raise SeekingError(f"data set {name}: neither a folder here nor found on the hub ({error})") from error
        raise unknown("data set", name, ["digits", "cifar10", "cifar100", "mnist", "fashion_mnist"]) from error
    except Exception as error:
        raise SeekingError(f"data set {name} cannot be read: {type(error).__name__}: {error}") from error

    if "train" not in splits:
        raise SeekingError(f"data set {name}: no train split; it has {', '.join(splits) or 'none'}")
    train = whole = splits["train"]
    held_out = next((splits[split] for split in TEST_SPLITS if split in splits), None)
    for share, seed in ((0.1 if held_out is None else None, 0), (config.validation, 1)):
        if share is None:
            continue
        if len(train) < 2:
            raise SeekingError(f"data set {name}: {len(train)} images and no test split; nothing can be held out")
        parts = train.train_test_split(test_size=share, seed=seed)
        train, held_out = parts["train"], parts["test"]
    assert held_out is not None
    train, held_out = (
        split if most is None or most >= len(split) else split.shuffle(seed=0).select(range(most))
        for split, most in ((train, config.max_train_samples), (held_out, config.max_eval_samples))
    )

    features = train.features
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    image_column = _column("image", config.image_column, list(features), images, name)
    if image_column not in images:
        raise SeekingError(f"data set {name}: column {image_column} holds {features[image_column]}, not images")
    labelled = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels = next(([column] for column in LABEL_COLUMNS if column in features), labelled)
    label_column = _column("label", config.label_column, list(features), labels, name)

    feature = features[label_column]
    if isinstance(feature, datasets.ClassLabel):
        classes = tuple(feature.names)
    elif str(getattr(feature, "dtype", "")).startswith(("int", "uint")) and len(train):
        classes = tuple(map(str, range(max((n for n in whole[label_column] if n is not None), default=0) + 1)))
    else:
        raise SeekingError(f"data set {name}: column {label_column} holds {feature}, not classes or integers")
    found, mode = [], None
    for part in (train, held_out):
        rows = part.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
        encoded = Encoded(rows, image_column, name, mode=mode, size=config.stored_size)
        mode = encoded.mode
        numbers = [-1 if label is None else int(label) for label in part[label_column]]
        found.append(Images(encoded, torch.tensor(numbers, dtype=torch.long)))
    return found[0], found[1], classes


def _column(kind: str, asked: str | None, columns: list[str], candidates: list[str], name: str) -> str:
    if asked is not None:
        if asked not in columns:
            raise unknown(f"{kind} column of {name}", asked, columns)
        return asked
    if len(candidates) != 1:
        found = f"several ({', '.join(candidates)})" if candidates else "none"
        raise SeekingError(
            f"data set {name}: a column of {kind}s is needed, found {found} among {', '.join(columns)}; "
            f"name it with {kind}_column"
        )
    return candidates[0]
