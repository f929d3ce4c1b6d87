"""What is minimised, and what is measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from seeking.errors import SeekingError
from seeking.weights_map import tensors_in

LossFn = Callable[[nn.Module, Any], Tensor]
"""From a model and a batch to the mean loss, a tensor of one element."""

Metrics = dict[str, float]


class Objective(Protocol):
    """The loss that both models minimise, and the metrics that they are evaluated by.

    A custom one goes to the ``Trainer`` as ``objective``. If it has ``state_dict`` and ``load_state_dict``, its state
    is saved with the run.
    """

    def loss(self, model: nn.Module, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """The mean training loss, a tensor of one element; ``teacher_logits`` are of another model on the batch."""

    def logits(self, model: nn.Module, batch: Any) -> Tensor:
        """What a model puts out for a batch, as ``teacher_logits`` takes it."""

    def loss_of_logits(self, logits: Tensor, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """As ``loss``, for logits that are known already."""

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Metrics of each sample, shape ``[samples]`` each; ``loss`` must be among them."""

    def model_inputs(self, batch: Any) -> tuple[Any, LossFn | None]:
        """One input of the models, and how they are run on it: as ``seeking.match`` takes ``batch`` and ``forward``."""

    def is_better(self, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Whether these metrics are better than the best ones so far."""


@dataclass
class Classification:
    """Cross-entropy on batches of ``(inputs, labels)``, and accuracy.

    With a teacher's logits, the loss is ``(1 - teacher_weight)`` of the labels' and ``teacher_weight`` of the
    divergence from the teacher, both softened by the temperature and scaled by its square (Hinton, Vinyals and Dean,
    "Distilling the Knowledge in a Neural Network", arXiv 1503.02531).

    Attributes:
        label_smoothing: of the labels, in training.
        teacher_weight: from 0 to 1.
        temperature: by which both models' logits are divided.
    """

    label_smoothing: float = 0.0
    teacher_weight: float = 0.9
    temperature: float = 4.0

    def loss(self, model: nn.Module, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """The mean loss."""
        return self.loss_of_logits(self.logits(model, batch), batch, teacher_logits)

    def loss_of_logits(self, logits: Tensor, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """The mean loss."""
        hard = F.cross_entropy(logits, batch[1], label_smoothing=self.label_smoothing)
        if teacher_logits is None:
            return hard
        student = F.log_softmax(logits / self.temperature, dim=-1)
        teacher = F.log_softmax(teacher_logits.float() / self.temperature, dim=-1)
        soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return (1 - self.teacher_weight) * hard + self.teacher_weight * self.temperature**2 * soft

    def logits(self, model: nn.Module, batch: Any) -> Tensor:
        """The model's output, shape ``[samples, classes]``."""
        logits: Tensor = model(batch[0])
        return logits

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Loss and accuracy of each sample."""
        inputs, labels = batch
        logits = model(inputs)
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        return {"loss": losses, "accuracy": logits.argmax(-1) == labels}

    def model_inputs(self, batch: Any) -> tuple[Any, LossFn | None]:
        """The inputs alone."""
        return batch[0], None

    def is_better(self, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """By accuracy."""
        return metrics["accuracy"] > best["accuracy"]


@dataclass
class CustomLoss:
    """A user's ``loss_fn(model, batch)``, which is all that is measured, too."""

    loss_fn: LossFn

    def loss(self, model: nn.Module, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """The mean loss.

        Raises:
            NotImplementedError: there is a teacher.
        """
        if teacher_logits is not None:
            raise NotImplementedError("a loss_fn takes no teacher; give the Trainer an objective that does")
        return self.loss_fn(model, batch)

    def logits(self, model: nn.Module, batch: Any) -> Tensor:
        """Unknown."""
        raise NotImplementedError("a loss_fn does not tell logits; give the Trainer an objective that does")

    def loss_of_logits(self, logits: Tensor, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """Unknown."""
        raise NotImplementedError("a loss_fn does not take logits; give the Trainer an objective that does")

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """The mean loss, for each sample."""
        return {"loss": self.loss_fn(model, batch).detach().float().repeat(sample_count(batch))}

    def model_inputs(self, batch: Any) -> tuple[Any, LossFn | None]:
        """The whole batch, for the ``loss_fn``."""
        return batch, self.loss_fn

    def is_better(self, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """By the loss; anything is better than NaN."""
        return not metrics["loss"] >= best["loss"]


def sample_count(batch: Any) -> int:
    """Length of the first tensor of a batch; 1 where there is none."""
    return next((len(tensor) for tensor in tensors_in(batch) if tensor.ndim), 1)


def make_objective(objective: Objective | None, loss_fn: LossFn | None, label_smoothing: float) -> Objective:
    """The objective that is asked for; classification if none is.

    Raises:
        SeekingError: both are given.
    """
    if objective and loss_fn:
        raise SeekingError("objective and loss_fn contradict each other; give one of them")
    return objective or (CustomLoss(loss_fn) if loss_fn else Classification(label_smoothing))
