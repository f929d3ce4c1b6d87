"""A task: a kind of data, how models are made for it, what they minimize, and how they are measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils.data import DataLoader

from seeking.choices import Loss
from seeking.data.config import DataConfig
from seeking.data.select import SplitUse
from seeking.errors import SeekingError
from seeking.experiments.config import RunConfig
from seeking.report.metric import Metric
from seeking.training.objective import Objective

Loader = DataLoader[tuple[Tensor, Tensor]]


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
        load: loads the data of some options, for a number of runs that share the machine and have this loss.
    """

    name: str
    metrics: Mapping[Loss, Metric]
    load: Callable[[DataConfig, int, Loss], TaskData]

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
