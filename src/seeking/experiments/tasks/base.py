"""A task: a kind of data, how models are made for it, what they minimize, and how they are measured."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seeking.choices import Loss
from seeking.data.config import DataConfig
from seeking.data.split_use import SplitUse
from seeking.errors import RunWarning, SeekingError
from seeking.experiments.config import RunConfig
from seeking.report.metric import Metric
from seeking.training.objective import Objective

OF_ALL = frozenset({"task", "data", "max_train_samples", "max_eval_samples", "validation", "held_out"})
"""Data options that every task uses."""

OF_SOURCES = frozenset({"subset", "train_split", "test_split", "image_column", "label_column"})
"""Data options that say what is what in data of the user's."""

Loader = DataLoader[tuple[Tensor, Tensor]]
Samples = Dataset[tuple[Tensor, Tensor]]
"""A data set with a length, whose ``__getitems__`` gives whole batches."""


class RunLoaders(NamedTuple):
    """The data of a run; ``held_out`` are training data on which no step trains, if there are any."""

    train: Loader
    evaluation: Loader
    held_out: Loader | None


class TaskData(Protocol):
    """Loaded data of a task."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def unit(self) -> str:
        """What its samples are, such as images."""

    @property
    def train_samples(self) -> int:
        """Number of training samples in an epoch."""

    @property
    def example(self) -> Tensor:
        """Two samples as models take them."""

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """Arguments of models for these data; ``num_classes``, the number of outputs, among them."""

    @property
    def splits(self) -> Sequence[SplitUse]:
        """What each split of the data is used for."""

    def describe(self) -> str:
        """How much there is of what, in one line."""

    def loaders(self, config: RunConfig) -> RunLoaders:
        """The data of a run with this seed and batch size."""

    def parts(self) -> tuple[Samples, Samples]:
        """The samples to train on, without augmentation, and those to evaluate on."""

    def objective(self, config: RunConfig) -> Objective | None:
        """What a run minimizes and how it is measured; None for the Trainer's default."""

    def taught(self, config: RunConfig, weight: float, temperature: float) -> Objective:
        """The same with this weight and temperature of a teacher."""


@dataclass(frozen=True)
class Task:
    """A kind of data.

    Attributes:
        name: in options.
        metrics: that models are compared by, for each loss that there is.
        measured: names of the metrics that an evaluation measures, for each loss.
        read: loads the data of some options, for a number of runs that share the machine and have this loss.
        options: names of the data options that it uses, beside those that all tasks use.
        included: names of data that need no file and no network. They have one form, so ``OF_SOURCES`` do not apply.
    """

    name: str
    metrics: Mapping[Loss, Metric]
    measured: Mapping[Loss, Collection[str]]
    read: Callable[[DataConfig, int, Loss], TaskData]
    options: frozenset[str]
    included: tuple[str, ...]

    def load(self, config: DataConfig, sharing: int, loss: Loss) -> TaskData:
        """Load data, as ``read`` does. Warns of options that are given and not used."""
        used = OF_ALL | self.options - (OF_SOURCES if config.data in self.included else frozenset())
        given = [field.name for field in fields(DataConfig) if getattr(config, field.name) != field.default]
        for name in given:
            if name not in used:
                data = f" with data {config.data}" if name in self.options else ""
                warnings.warn(f"{name} is not used by task {self.name}{data}", RunWarning, stacklevel=2)
        return self.read(config, sharing, loss)

    def metric(self, loss: Loss) -> Metric:
        """That models are compared by.

        Raises:
            SeekingError: its data are not for this loss.
        """
        if loss not in self.metrics:
            raise SeekingError(
                f"the task is {self.name}, whose data are not for loss {loss}; give task tabular, or, for data of your "
                f"own in Python, Trainer(config=TrainConfig(loss={loss!r}))"
            )
        return self.metrics[loss]


def cut(samples: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What comes before the last ``count`` samples, and these; all of them if there are fewer."""
    place = max(0, len(samples) - count)
    return samples[:place], samples[place:]
