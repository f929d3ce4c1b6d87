"""Data sets by name or path."""

from dataclasses import dataclass
from typing import Any

import psutil
import torch

from seeking.data.augment import Augmentation
from seeking.data.config import DataConfig
from seeking.data.encoded import Encoded, Files, common_format
from seeking.data.images import Batches, Images
from seeking.data.labels import is_labelled, unite
from seeking.data.sources import read
from seeking.distributed.processes import cores, local_process_count, this_process
from seeking.errors import SeekingError, unknown

LABEL_COLUMNS = ("label", "labels", "fine_label")
TEST_SPLITS = ("test", "validation")


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
        return train, Batches(self.test, self.mean, self.std, size=self.size)

    def held_out_batches(self) -> Batches | None:
        """The held-out training data, without augmentation; None if there are none."""
        return Batches(self.held_out, self.mean, self.std, size=self.size) if self.held_out else None


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
            count = round(len(train) * config.validation)
            train, test = train.select(order[count:]), train.select(order[:count])
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
    train, test, location = _place(train, test, config.in_memory, sharing)
    train, held_out = _hold_out(train, config)
    if held_out:
        unused.append(_use("held out for conditions", f"{len(held_out)} of {sources[0]}", held_out))
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
        held_out=held_out,
    )


def _place(train: Images, test: Images, in_memory: bool | None, sharing: int) -> tuple[Images, Images, str]:
    """Move both splits to where loading is fastest, and name the location."""
    size = (train.pixels.shape.numel() + test.pixels.shape.numel()) * sharing
    if in_memory is None:  # Each process keeps its own copy.
        in_memory = size * local_process_count() <= psutil.virtual_memory().available // 2
    if not in_memory and isinstance(train.pixels, Encoded):
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
    kept = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return images.select(kept)


def _hold_out(train: Images, config: DataConfig) -> tuple[Images, Images | None]:
    if not config.held_out:
        return train, None
    if config.held_out >= len(train):
        raise SeekingError(
            f"held_out is {config.held_out}, and {config.data} has {len(train)} training images; hold out fewer"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(2)).to(train.labels.device)
    return train.select(order[config.held_out :]), train.select(order[: config.held_out])


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
    splits = read(name)
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
