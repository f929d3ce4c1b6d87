"""Objectives: the training loss and the evaluation metrics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from seeking.errors import SeekingError
from seeking.forward import call_with_one
from seeking.training.config import BestMode
from seeking.training.samples import target_count
from seeking.training.targets import IGNORED_LABEL, class_targets

LossFn = Callable[[nn.Module, Any], Any]
"""Maps a model and a batch to the mean loss, a scalar tensor; to an output with ``.loss``; to a mapping with ``loss``;
or to a tuple that begins with it."""

Metrics = dict[str, float]


class Objective(Protocol):
    """The loss that both models minimize, and the metrics that they are evaluated with.

    Pass a custom objective to the ``Trainer`` as ``objective``. If it has ``state_dict`` and ``load_state_dict``, its
    state is saved with the run. If it has ``count(batch)``, that is the number of targets in a batch that the loss is
    the mean over: batches that make one step are weighted by it, and by their samples without it. If it has
    ``summarize(means)``, it makes the metrics of an evaluation from the means over all samples. A subclass has ``loss``
    by ``loss_of_logits``, and ``is_better`` by the loss.
    """

    def loss(self, model: nn.Module, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """The mean training loss, a scalar tensor; ``teacher_logits`` are the logits of another model on the batch."""
        return self.loss_of_logits(self.logits(model, batch), batch, teacher_logits)

    def logits(self, model: nn.Module, batch: Any) -> Tensor:
        """The output of a model on a batch, in the form of ``teacher_logits``."""

    def loss_of_logits(self, logits: Tensor, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """The mean training loss, given the logits."""

    def loss_and_logits(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """The mean training loss and the logits that it is of, by one forward pass."""
        logits = self.logits(model, batch)
        return self.loss_of_logits(logits, batch), logits

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Metrics for each sample, each of shape ``[samples]``; must include ``loss``."""

    def model_inputs(self, batch: Any) -> tuple[Any, LossFn | None]:
        """The ``batch`` and ``forward`` arguments of ``seeking.match`` for a batch of the loader."""

    def is_better(self, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Whether these metrics are better than the best so far: by the loss, where any value is better than NaN."""
        return not metrics["loss"] >= best["loss"]


def loss_and_logits(objective: Objective, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """The mean loss and the logits that it is of, also by an objective that does not inherit the protocol."""
    own = getattr(objective, "loss_and_logits", None)
    return own(model, batch) if own else Objective.loss_and_logits(objective, model, batch)


@dataclass
class Classification(Objective):
    """Cross-entropy on batches of ``(inputs, labels)``, and accuracy.

    With a teacher, the loss is ``(1 - teacher_weight)`` times the cross-entropy with the labels plus ``teacher_weight``
    times the divergence from the teacher. The divergence is computed at the temperature and scaled by its square
    (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531).

    Attributes:
        label_smoothing: label smoothing in training.
        teacher_weight: weight of the distillation loss, in [0, 1].
        temperature: divides the logits of both models in the distillation loss.
    """

    METRICS: ClassVar[Mapping[str, BestMode]] = {"loss": "min", "accuracy": "max"}
    """That an evaluation measures, and which way each is better."""

    label_smoothing: float = 0.0
    teacher_weight: float = 0.9
    temperature: float = 4.0

    def loss_of_logits(self, logits: Tensor, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """The mean loss."""
        labels = labelled(batch)[1]
        hard = _cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if teacher_logits is None:
            return hard
        student, teacher = (each.movedim(1, -1).flatten(0, -2) for each in (logits, teacher_logits))
        return distilled(hard, student, teacher, labels, self.teacher_weight, self.temperature)

    def logits(self, model: nn.Module, batch: Any) -> Tensor:
        """The model's output, shape ``[samples, classes]``."""
        logits: Tensor = model(labelled(batch)[0])
        return logits

    def count(self, batch: Any) -> int:
        """Number of labels that are not -100; of probabilities, number of samples."""
        return target_count(batch)

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Loss and accuracy for each sample whose label is not -100, which training leaves out as well."""
        inputs, labels = labelled(batch)
        logits = model(inputs)
        losses = _cross_entropy(logits.float(), labels, reduction="none")
        targets = labels.argmax(1) if labels.is_floating_point() else labels
        metrics = {"loss": losses, "accuracy": logits.argmax(1) == targets}
        return {name: each[targets != IGNORED_LABEL] for name, each in metrics.items()}

    def model_inputs(self, batch: Any) -> tuple[Any, LossFn | None]:
        """The inputs without the labels."""
        return labelled(batch)[0], call_with_one

    def is_better(self, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Compare by accuracy."""
        return metrics["accuracy"] > best["accuracy"]


def distilled(
    hard: Tensor, logits: Tensor, teacher_logits: Tensor, labels: Tensor | None, weight: float, temperature: float
) -> Tensor:
    """The loss of a student, from its loss on the labels and the logits of both.

    Args:
        hard: the mean loss on the labels.
        logits: the student's, shape ``[labels, classes]``.
        teacher_logits: the teacher's, of the same shape.
        labels: those that are -100 are left out here as well; None leaves out none.
        weight: of the divergence from the teacher, in [0, 1]; the loss on the labels has the rest.
        temperature: divides the logits of both; the divergence is scaled by its square.
    """
    if labels is not None and not labels.is_floating_point():
        counted = labels.flatten() != IGNORED_LABEL
        logits, teacher_logits = logits[counted], teacher_logits[counted]
    student = F.log_softmax(logits / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return (1 - weight) * hard + weight * temperature**2 * soft


def labelled(batch: Any) -> tuple[Any, Tensor]:
    """The inputs and the labels of a batch.

    Raises:
        SeekingError: it has another form.
    """
    if isinstance(batch, tuple | list) and len(batch) > 1 and isinstance(batch[1], Tensor):
        return batch[0], batch[1]
    example = "loss_fn(model, batch)"
    if isinstance(batch, Mapping):
        example = "lambda model, batch: F.cross_entropy(model(batch['image']), batch['label'])"
    raise SeekingError(
        f"a batch of the loader is {_described(batch)}, not inputs and a tensor of labels; give the Trainer a loss_fn, "
        f"such as {example}, or an objective"
    )


def _described(value: Any) -> str:
    """The type of a value, and what is in it if it is a mapping, a tuple or a list."""
    content = ""
    if isinstance(value, Mapping):
        content = f" with {', '.join(map(str, value)) or 'nothing'}"
    elif isinstance(value, tuple | list):
        content = f" of {', '.join(type(item).__name__ for item in value) or 'nothing'}"
    return f"a {type(value).__name__}{content}"


def _cross_entropy(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The cross-entropy.

    Raises:
        SeekingError: a label is out of range, or the targets are no classes.
    """
    labels = class_targets(labels, logits)
    try:
        return F.cross_entropy(logits, labels, **options)
    except (IndexError, RuntimeError) as error:
        classes = logits.shape[1] if logits.ndim > 1 else 0
        if labels.device.type != "cpu" or labels.is_floating_point() or not classes:
            raise
        wrong = ((labels < 0) & (labels != IGNORED_LABEL) | (labels >= classes)).nonzero()
        if not len(wrong):
            raise
        position = wrong[0].tolist()
        raise SeekingError(
            f"label {int(labels[tuple(position)])} of sample {position[0]} of the batch is out of range; the model has "
            f"{classes} outputs, so labels are 0 to {classes - 1}"
        ) from error


def check_loss(loss: Any, source: str) -> None:
    """Check what an objective or a ``loss_fn`` returns as the mean loss.

    Args:
        loss: the returned value.
        source: what returned it, for the error message.

    Raises:
        SeekingError: it is not a floating-point tensor of one element.
    """
    if not isinstance(loss, Tensor):
        raise SeekingError(
            f"{source} returned {_described(loss)}, not the mean loss as a scalar tensor; return that, or from a "
            "loss_fn an output with .loss, a dictionary with 'loss', or a tuple that begins with it"
        )
    if loss.numel() != 1 or not loss.is_floating_point():
        raise SeekingError(
            f"{source} returned a tensor of shape {list(loss.shape)} and {loss.dtype}, not the mean loss as a scalar "
            "of floating point; reduce it, for example with .mean()"
        )


def check_metrics(metrics: Any, source: str) -> None:
    """Check what an objective returns as metrics.

    Args:
        metrics: the returned value.
        source: what returned it, for the error message.

    Raises:
        SeekingError: they are not tensors of one dimension and equal length by name, ``loss`` among them.
    """
    form = "metrics by name, each a tensor of shape [samples], with loss among them"
    if not isinstance(metrics, Mapping):
        raise SeekingError(f"{source} returned a {type(metrics).__name__}, not {form}")
    if "loss" not in metrics:
        raise SeekingError(f"{source} returned {', '.join(map(str, metrics)) or 'nothing'}, not {form}")
    shapes = {name: list(each.shape) if isinstance(each, Tensor) else type(each) for name, each in metrics.items()}
    for name, shape in shapes.items():
        if not isinstance(shape, list) or len(shape) != 1 or shape != shapes["loss"]:
            described = f"of shape {shape}" if isinstance(shape, list) else f"a {shape.__name__}"
            raise SeekingError(f"{source} returned {name} {described} and a loss of {shapes['loss']}, not {form}")


def summarized(objective: Objective, means: Mapping[str, float]) -> Metrics:
    """The metrics of an evaluation, from the mean of each over all samples."""
    summarize: Callable[[Mapping[str, float]], Mapping[str, float]] = getattr(objective, "summarize", dict)
    return dict(summarize(means))
