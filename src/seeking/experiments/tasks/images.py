"""Classification of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seeking.choices import Loss
from seeking.data import ImageData, SplitUse, load, loader
from seeking.data.config import DataConfig
from seeking.errors import SeekingError
from seeking.experiments.config import RunConfig
from seeking.experiments.tasks.base import OF_SOURCES, RunLoaders, Samples, Task, TaskData
from seeking.report.metric import ACCURACY
from seeking.training.objective import Classification, Objective


@dataclass(frozen=True)
class ImagesOfRun:
    """Loaded images."""

    data: ImageData
    unit: str = "images"

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.data.name

    @property
    def train_samples(self) -> int:
        """Number of training images."""
        return len(self.data.train)

    @property
    def example(self) -> Tensor:
        """Two black images, float32 ``[2, channels, height, width]``."""
        return torch.zeros(2, *self.data.shape)

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """Numbers of classes and channels."""
        return {"num_classes": len(self.data.classes), "in_chans": self.data.shape[0]}

    @property
    def splits(self) -> tuple[SplitUse, ...]:
        """What each split of the data is used for."""
        return self.data.splits

    def describe(self) -> str:
        """Numbers of images and classes, their size, and where they are kept."""
        channels, height, width = self.data.shape
        return (
            f"{len(self.data.train):,} training and {len(self.data.test):,} test images of "
            f"{channels}×{height}×{width}, {len(self.data.classes)} classes, {self.data.location}"
        )

    def loaders(self, config: RunConfig) -> RunLoaders:
        """Augmented training images, and others as they are."""
        train, test = self.data.batches(config.seed)
        train.classes = test.classes = self.data.classes
        held_out = self.data.held_out_batches()
        size, workers = max(256, config.batch_size), self.data.workers
        return RunLoaders(
            loader(train, config.batch_size, shuffle_seed=config.seed, workers=workers),
            loader(test, size, workers=workers),
            loader(held_out, size) if held_out else None,
        )

    def parts(self) -> tuple[Samples, Samples]:
        """Images as they are."""
        return self.data.as_they_are(self.data.train), self.data.as_they_are(self.data.test)

    def objective(self, config: RunConfig) -> Objective | None:
        """The Trainer's own classification."""
        return None

    def taught(self, config: RunConfig, weight: float, temperature: float) -> Objective:
        """Classification with a teacher."""
        return Classification(config.label_smoothing, weight, temperature)


def _load(config: DataConfig, sharing: int, loss: Loss) -> TaskData:
    data = load(config, sharing)
    if len(data.classes) < 2:
        raise SeekingError(
            f"data set {data.name}: all images are of one class, {data.classes[0]}; there is nothing to learn: add "
            "images of other classes, or name another column in label_column"
        )
    return ImagesOfRun(data)


OPTIONS = frozenset(
    {"image_size", "channels", "crop_padding", "crop_scale", "flip", "color_jitter", "random_erasing", "mean", "std"}
    | {"split_method", "in_memory", "on_bad_image", "workers"}
)

TASK = Task(
    "images",
    {"cross_entropy": ACCURACY},
    {"cross_entropy": Classification.METRICS},
    _load,
    OPTIONS | OF_SOURCES,
    ("digits",),
)
