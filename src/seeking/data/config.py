"""Data options: one dataclass defines the command-line flags, the keys of a YAML file and the Python API."""

from dataclasses import dataclass

from seeking.choices import OnBadImage, SplitMethod, Task
from seeking.option_types import Changeable, Harmless, Locating, Ranges, check_ranges, check_types

MAX_IMAGE_SIZE = 1 << 14
"""In pixels; a batch of larger images fits into no memory."""

RANGES: Ranges = (
    (lambda value: value >= 1, "must be 1 or more", ("image_size", "sequence_length")),
    (lambda value: value >= 1, "must be 1 or more", ("max_train_samples", "max_eval_samples", "held_out")),
    (lambda value: value >= 0, "must be 0 or more", ("crop_padding", "workers")),
    (lambda value: value <= MAX_IMAGE_SIZE, f"must be {MAX_IMAGE_SIZE} or less", ("image_size",)),
    (lambda value: value in (1, 3), "must be 1 (gray) or 3 (color)", ("channels",)),
    (lambda value: 0 < value < 1, "is a share of the training data, between 0 and 1", ("validation",)),
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data set, and how its samples are loaded and augmented."""

    task: Task = "images"
    """What the data are: images (with their classes), text (for language models over bytes), or tabular (rows of
    numbers with their classes or values)."""

    data: Locating[Harmless[str]] = "digits"
    """digits (scikit-learn's handwritten digits, nothing to download), a name on the Hugging Face hub such as
    uoft-cs/cifar10, a folder of parquet files or one such file, or a folder of images (train/CLASS/*.png). For text: a
    file, or python (the sources of Python's standard library). For tabular: a CSV or parquet file, a folder of them,
    a name on the hub, or breast_cancer, diabetes, digits or wine (of scikit-learn)."""
    subset: Locating[Harmless[str | None]] = None
    """Name of the subset (configuration) of a data set on the hub that has several."""
    sequence_length: int = 256
    """Bytes in a sample of a text."""
    train_split: Locating[Harmless[str | None]] = None
    """Training split, if it is not called train: the name of a split, or, in a folder of images, the path of the folder
    that the classes are in, such as seg_train/seg_train ("." for the folder itself). For tabular, a file as well."""
    test_split: Locating[Harmless[str | None]] = None
    """Test split; as for train_split."""
    image_size: int | None = None
    """Side in pixels that images are resized and cropped to; their own size if not given."""
    image_column: Harmless[str | None] = None
    """Name of the image column, if there are several."""
    label_column: Harmless[str | None] = None
    """Name of the label column, if it is not label, labels or fine_label; of tables, target as well."""
    ignore_columns: Harmless[tuple[str, ...]] = ()
    """Columns of a table that are left out, such as identifiers."""
    category_columns: Harmless[tuple[str, ...]] = ()
    """Columns of a table whose numbers are categories."""
    channels: int | None = None
    """1 to read images in gray, 3 to read them in color; if not given, 1 if all of them are gray."""
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
    """Train on a random subset of this many images or rows, the same for all seeds. Of a text: the number of random
    windows in an epoch, if not as many as lie side by side."""
    max_eval_samples: int | None = None
    """Evaluate on a random subset of this many images or rows, or on this many windows of a text, the same for all
    seeds."""
    validation: float | None = None
    """Hold out this share of the training images or rows, or the end of a training text, and evaluate on it instead of
    the test data; the same for all seeds."""
    held_out: int | None = None
    """Hold out this many training images or rows, or windows at the end of a training text, on which no step trains and
    nothing is evaluated, for conditions that measure the base's loss on them; the same for all seeds."""
    split_method: SplitMethod = "classes"
    """How images are held out of the training split, by --validation, --held-out or for want of a test split: such that
    each class keeps at least one (classes), or at random as in version 0.1.0 (random)."""
    in_memory: Changeable[bool | None] = None
    """Decode all images once and keep them in memory, or let workers decode them on demand. If not given, they are
    kept if they fit into half of the free memory. They are kept on the device if they fit into a quarter of its free
    memory."""
    on_bad_image: Locating[OnBadImage] = "error"
    """What to do if images cannot be decoded: error (list them, and do not train), or skip (go on without them; those
    that are decoded on demand are then all tried first)."""
    workers: Changeable[int | None] = None
    """Worker processes that decode images on demand; if not given, this process's share of the cores, at most 8."""

    def __post_init__(self) -> None:
        check_types(self, DataConfig)
        check_ranges(self, RANGES)
        from seeking.data.augment import Augmentation  # Imports PyTorch, which help does without.

        # Validates the other options.
        Augmentation(scale=self.crop_scale, jitter=self.color_jitter, erase=self.random_erasing)

    @property
    def chosen_splits(self) -> dict[str, str]:
        """The splits, files or folders that are chosen as ``train`` and ``test``, if any are."""
        chosen = {"train": self.train_split, "test": self.test_split}
        return {split: name for split, name in chosen.items() if name}

    @property
    def stored_size(self) -> int | None:
        """Side in pixels that images are resized and cropped to when they are decoded."""
        if self.image_size is None or self.crop_scale is None:
            return self.image_size
        return round(self.image_size / 0.875)
