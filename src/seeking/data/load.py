"""Data sets by name or path."""

from dataclasses import dataclass
from typing import Any, get_args

import psutil
import torch

from seeking.data.augment import Augmentation
from seeking.data.encoded import Encoded, Files, common_format
from seeking.data.images import Batches, Images
from seeking.data.labels import is_labelled, unite
from seeking.data.sources import read
from seeking.data.unreadable import OnBadImage, readable
from seeking.distributed.processes import cores, local_process_count, this_process
from seeking.errors import SeekingError, unknown

LABEL_COLUMNS = ("label", "labels", "fine_label")
TEST_SPLITS = ("test", "validation")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data set, and how its images are loaded and augmented."""

    data: str = "digits"
    """digits (scikit-learn's handwritten digits, nothing to download), a name on the Hugging Face hub such as
    uoft-cs/cifar10, a folder of parquet files or one such file, or a folder of images (train/CLASS/*.png)."""
    train_split: str | None = None
    """Training split, if it is not called train: the name of a split, or, in a folder of images, the path of the folder
    that the classes are in, such as seg_train/seg_train ("." for the folder itself)."""
    test_split: str | None = None
    """Test split; as for train_split."""
    image_size: int | None = None
    """Side in pixels that images are resized and cropped to; their own size if not given."""
    image_column: str | None = None
    """Name of the image column, if there are several."""
    label_column: str | None = None
    """Name of the label column, if it is not label, labels or fine_label."""
    channels: int | None = None
    """1 to read images in grey, 3 to read them in colour; if not given, 1 if all of them are grey."""
    crop_padding: int | None = None
    """Padding of the random crop in pixels; an eighth of the image's side if not given, 0 for no crop."""
    crop_scale: float | None = None
    """Use random resized crops instead; the value is the smallest share of the image's area, such as 0.08. With
    image_size, images are stored an eighth larger, and test images are center cropped."""
    flip: bool | None = None
    """Random horizontal flips; if not given, on for all data but digits."""
    color_jitter: float = 0.0
    """Random brightness, contrast and saturation: each factor is within this distance of 1, such as 0.4."""
    random_erasing: float = 0.0
    """Probability that a random rectangle of an image is erased."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, for pixels in [0, 1]; computed from the training images if not given."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel; as for mean."""
    max_train_samples: int | None = None
    """Train on a random subset of this many images, the same for all seeds."""
    max_eval_samples: int | None = None
    """Evaluate on a random subset of this many images, the same for all seeds."""
    validation: float | None = None
    """Hold out this share of the training images and evaluate on it instead of the test images; the same images for
    all seeds."""
    in_memory: bool | None = None
    """Decode all images once and keep them in memory, or let workers decode them on demand. If not given, they are
    kept if they fit into half of the free memory. They are kept on the device if they fit into a quarter of its free
    memory."""
    on_bad_image: OnBadImage = "error"
    """What to do if images cannot be decoded: error (list them, and do not train), or skip (go on without them; those
    that are decoded on demand are then all tried first)."""
    workers: int | None = None
    """Worker processes that decode images on demand; if not given, this process's share of the cores, at most 8."""

    def __post_init__(self) -> None:
        for name in ("image_size", "crop_padding", "max_train_samples", "max_eval_samples", "workers"):
            minimum = 0 if name in ("crop_padding", "workers") else 1
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise SeekingError(f"{name} is {value}; it must be {minimum} or more")
        if self.on_bad_image not in get_args(OnBadImage):
            raise unknown("value of on_bad_image", self.on_bad_image, get_args(OnBadImage))
        if self.channels not in (None, 1, 3):
            raise SeekingError(f"channels is {self.channels}; it must be 1 (grey) or 3 (colour)")
        if self.validation is not None and not 0 < self.validation < 1:
            raise SeekingError(f"validation is {self.validation}; it is a share of the images, between 0 and 1")
        # Validates the other options.
        Augmentation(scale=self.crop_scale, jitter=self.color_jitter, erase=self.random_erasing)

    @property
    def stored_size(self) -> int | None:
        """Side in pixels that images are resized and cropped to when they are decoded."""
        if self.image_size is None or self.crop_scale is None:
            return self.image_size
        return round(self.image_size / 0.875)


@dataclass(frozen=True)
class SplitUse:
    """What a split of a data set is used for.

    Attributes:
        use: training, test or not used.
        source: where the images come from.
        classes: how many classes have images; None if the split is not used.
        images: how many there are.
    """

    use: str
    source: str
    classes: int | None
    images: int


@dataclass(frozen=True)
class ImageData:
    """A data set ready for training.

    Attributes:
        splits: what each split of the data is used for.
        size: height and width of the images in a batch.
        location: where the images are kept, for messages.
        workers: worker processes that decode images on demand.
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

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.train.pixels.shape[1], *self.size

    def batches(self, seed: int) -> tuple[Batches, Batches]:
        """Training data with augmentation, and test data without."""
        train = Batches(self.train, self.mean, self.std, size=self.size, augmentation=self.augmentation, seed=seed)
        return train, Batches(self.test, self.mean, self.std, size=self.size)


def load(config: DataConfig, sharing: int = 1) -> ImageData:
    """Load a data set and, if it fits, decode it into memory.

    Args:
        config: which data set, and how to load it.
        sharing: number of runs on this machine that share its memory and cores.

    Raises:
        SeekingError: the data set does not exist, is empty, has no images or labels, has a label out of range, or has
            images of several sizes.
    """
    if config.data == "digits":
        train, test, classes = _digits(config.stored_size, config.channels or 1)
        sources = "the other images", "every fifth image"
        if config.validation:
            sources = sources[0], _held_out(config.validation, sources[0])
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
            held_out = round(len(train) * config.validation)
            train, test = (train.select(rows) for rows in (order[held_out:], order[:held_out]))
        train, test = _subset(train, config.max_train_samples), _subset(test, config.max_eval_samples)
        unused: list[SplitUse] = []
    else:
        train, test, classes, sources, unused = _from_hub_or_folder(config)
    for split, images in (("training", train), ("test", test)):
        if not len(images):
            raise SeekingError(f"{config.data}: the {split} split is empty")
        out_of_range = (images.labels < 0) | (images.labels >= len(classes))
        if out_of_range.any():
            row = int(out_of_range.nonzero()[0])
            raise SeekingError(
                f"{config.data}: label {int(images.labels[row])} of {split} image {row} is out of range; "
                f"there are {len(classes)} classes, numbered from 0"
            )
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise SeekingError(
            f"{config.data}: training images are {list(train.pixels.shape[1:])}, test images "
            f"{list(test.pixels.shape[1:])}; give image_size to make them the same"
        )
    encoded = train.pixels, test.pixels
    train, test, location = _place(train, test, config, sharing)
    if isinstance(encoded[0], Encoded) and isinstance(encoded[1], Encoded):
        splits = {"training": (train, encoded[0].files), "test": (test, encoded[1].files)}
        train, test = readable(splits, config.on_bad_image)
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
        splits=(_use("training", sources[0], train), _use("test", sources[1], test), *unused),
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
        location=location,
        workers=max(1, min(8, cores() // (sharing * local_process_count())))
        if config.workers is None
        else config.workers,
    )


def _place(train: Images, test: Images, config: DataConfig, sharing: int) -> tuple[Images, Images, str]:
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


def _digits(size: int | None, channels: int) -> tuple[Images, Images, tuple[str, ...]]:
    """1,797 grayscale images of 8×8 pixels; every fifth is a test image."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (torch.from_numpy(bunch.images) * (255 / 16)).round().to(torch.uint8)[:, None].repeat(1, channels, 1, 1)
    if size:
        from torchvision.transforms.v2.functional import resize

        pixels = resize(pixels, [size, size])
    labels = torch.from_numpy(bunch.target).long()
    test = torch.arange(len(labels)) % 5 == 4
    return Images(pixels[~test], labels[~test]), Images(pixels[test], labels[test]), tuple(map(str, range(10)))


def _subset(images: Images, count: int | None) -> Images:
    if count is None:
        return images
    return images.select(torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count])


def _held_out(share: float, source: str) -> str:
    return f"{share:.3g} of {source}, held out"


def _use(use: str, source: str, images: Images) -> SplitUse:
    return SplitUse(use, source, len(images.labels.unique()), len(images))


def _from_hub_or_folder(
    config: DataConfig,
) -> tuple[Images, Images, tuple[str, ...], tuple[str, str], list[SplitUse]]:
    """Both splits, the classes, where the splits come from, and the splits that are not used."""
    import datasets

    name = config.data
    chosen = {split: path for split, path in (("train", config.train_split), ("test", config.test_split)) if path}
    splits = read(name, chosen)
    features = splits["train"].rows[0].features
    labelled = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels = next(([column] for column in LABEL_COLUMNS if column in features), labelled)
    label_column = _column("label", config.label_column, list(features), labels, name)
    candidates = (split for split in TEST_SPLITS if split in splits)
    test_split = next((split for split in candidates if is_labelled(splits[split], label_column, name)), None)
    train, held_out, classes = unite(splits["train"], splits[test_split] if test_split else None, label_column, name)
    train_source = splits["train"].source
    test_source = splits[test_split].source if test_split else ""
    unused = [
        SplitUse("not used", rows.source, None, len(rows))
        for split, rows in splits.items()
        if split not in ("train", test_split)
    ]
    for held_out_share, seed in ((0.1 if held_out is None else None, 0), (config.validation, 1)):
        if held_out_share is None:
            continue
        if len(train) < 2:
            raise SeekingError(f"data set {name}: {len(train)} images and no test split; cannot hold out a test split")
        parts = train.train_test_split(test_size=held_out_share, seed=seed)
        unused += [SplitUse("not used", test_source, None, len(held_out))] if held_out is not None else []
        train, held_out = parts["train"], parts["test"]
        test_source = _held_out(held_out_share, train_source)
    train, held_out = (
        split if count is None or count >= len(split) else split.shuffle(seed=0).select(range(count))
        for split, count in ((train, config.max_train_samples), (held_out, config.max_eval_samples))
    )

    features = train.features
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    images = images or [column for column, feature in features.items() if _holds_bytes(feature)]
    image_column = _column("image", config.image_column, list(features), images, name)
    files = [Files(_encoded(part, image_column, name), image_column, name) for part in (train, held_out)]
    pixel_format = common_format(files, config.channels)
    loaded = []
    for part, part_files in zip((train, held_out), files, strict=True):
        numbers = [-1 if label is None else int(label) for label in part[label_column]]
        encoded = Encoded(part_files, pixel_format, config.stored_size)
        loaded.append(Images(encoded, torch.tensor(numbers, dtype=torch.long)))
    return loaded[0], loaded[1], classes, (train_source, test_source), unused


def _holds_bytes(feature: Any) -> bool:
    """Whether a column may hold encoded images as plain bytes, alone or with the path of their file."""
    feature = feature.get("bytes") if isinstance(feature, dict) else feature
    return "binary" in str(getattr(feature, "dtype", ""))


def _encoded(rows: Any, column: str, name: str) -> Any:
    """The image column alone, as encoded images: from images, their bytes, or the paths of their files."""
    import datasets

    rows = rows.select_columns([column])
    feature = rows.features[column]
    if not isinstance(feature, datasets.Image | dict):
        if getattr(feature, "dtype", "") not in ("string", "large_string") and not _holds_bytes(feature):
            raise SeekingError(
                f"data set {name}: column {column} holds {feature}, not images; store them encoded (PNG, JPEG), or "
                "name another column with image_column"
            )
        if _holds_bytes(feature):
            rows = rows.cast_column(column, datasets.Value("large_binary"))  # Not every kind of bytes is an Image yet.
    try:
        return rows.cast_column(column, datasets.Image(decode=False))
    except Exception as error:
        raise SeekingError(
            f"data set {name}: column {column} holds {feature}, which cannot be read as images ({error})"
        ) from error


def _column(kind: str, requested: str | None, columns: list[str], candidates: list[str], name: str) -> str:
    if requested is not None:
        if requested not in columns:
            raise unknown(f"{kind} column of {name}", requested, columns)
        return requested
    if len(candidates) != 1:
        candidate_names = f"several ({', '.join(candidates)})" if candidates else "none"
        raise SeekingError(
            f"data set {name}: needs one {kind} column, found {candidate_names} among {', '.join(columns)}; "
            f"name it with {kind}_column"
        )
    return candidates[0]
