"""Objectives by a ``loss_fn``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from seeking.errors import SeekingError
from seeking.internals import copied_from
from seeking.renewed import renewed
from seeking.training.objective import LossFn, Objective, check_loss, distilled
from seeking.training.samples import sample_count, target_count

SOFTMAX_TOLERANCE = 1e-3
HALF_SOFTMAX_TOLERANCE = 0.1
"""The gradient of a cross-entropy sums to zero over the classes, up to rounding; the second is for two bytes."""

LEAST_GRADIENT = 1e-4
"""Sum of the magnitudes below which a gradient is that of labels that are all but certain, and rounding to one side."""


@dataclass
class CustomLoss(Objective):
    """A custom ``loss_fn(model, batch)``, which is also the only metric.

    A model can be taught if the ``loss_fn`` returns logits with the loss: an output with ``.loss`` and ``.logits``, or
    a mapping with both. The classes are the dimension over which the gradient of the loss with respect to the logits
    sums to zero, and a label counts where that gradient is not zero. So padding is left out and labels may be shifted.

    Attributes:
        loss_fn: the loss.
        teacher_weight: weight of the divergence from a teacher, in [0, 1]; the loss has the rest.
        temperature: divides the logits of both models in the divergence, which is scaled by its square.
        teaches: whether logits will be needed later, so that the first loss is to tell if they are missing.
    """

    loss_fn: LossFn
    teacher_weight: float = 0.9
    temperature: float = 4.0
    teaches: bool = False
    _classes: int | None = field(default=None, init=False)
    """The dimension of the classes, once a gradient has told."""

    def loss(self, model: nn.Module, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """The mean loss. If it needs gradients, such as for a penalty on them, it has them in an evaluation, too.

        Raises:
            SeekingError: the ``loss_fn`` gives no mean loss; or, for a teacher, no logits that it is computed from.
        """
        if not torch.is_grad_enabled() and teacher_logits is None:
            try:
                # It may take something out of the batch.
                return loss_in(loss_of(self.loss_fn, model, renewed(batch)), "loss_fn")
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
        with torch.enable_grad():
            output = loss_of(self.loss_fn, model, batch)
        loss = loss_in(output, "loss_fn")
        if teacher_logits is not None:
            return self.taught(loss, logits_in(output), teacher_logits)
        if self.teaches and self._classes is None and torch.is_grad_enabled() and loss.requires_grad:
            self._class_dimension(_gradient(loss, logits_in(output)))
        return loss

    def loss_and_logits(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """The mean loss and the logits, of one forward pass."""
        output = loss_of(self.loss_fn, model, batch)
        return loss_in(output, "loss_fn"), logits_in(output)

    def logits(self, model: nn.Module, batch: Any) -> Tensor:
        """The logits that the ``loss_fn`` returns.

        Raises:
            SeekingError: it returns none, or its loss is not one of their softmax.
        """
        with torch.enable_grad():
            loss, logits = self.loss_and_logits(model, batch)
        if loss.requires_grad:  # It does not if the model is frozen.
            gradient = _gradient(loss, logits)
            tolerance = SOFTMAX_TOLERANCE if gradient.element_size() > 2 else HALF_SOFTMAX_TOLERANCE
            unbalanced = _imbalance(gradient, self._class_dimension(gradient)) > tolerance
            if unbalanced and _magnitude(gradient) >= LEAST_GRADIENT:
                raise SeekingError(
                    "the loss of the loss_fn is no cross-entropy of the classes of its logits, so that one model "
                    "cannot learn from the other one's; set teach to 0, or give an objective"
                )
        return logits if torch.is_grad_enabled() else logits.detach()

    def loss_of_logits(self, logits: Tensor, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """Not available for a ``loss_fn``."""
        raise NotImplementedError("a loss_fn does not take logits; give the Trainer an objective that does")

    def count(self, batch: Any) -> int:
        """Number of targets that are not -100, if they are found and integers; else number of samples."""
        return target_count(batch)

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """The mean loss, repeated for each sample."""
        samples = sample_count(batch)  # The loss_fn may take something out of the batch.
        return {"loss": self.loss(model, batch).detach().float().reshape(()).repeat(samples)}

    def model_inputs(self, batch: Any) -> tuple[Any, LossFn | None]:
        """The batch, and the mean loss."""
        return batch, self.loss

    def taught(self, loss: Tensor, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The loss of a student, from its loss without a teacher and the logits of both."""
        check_same_shape(logits, teacher_logits)
        gradient = _gradient(loss, logits)
        classes = self._class_dimension(gradient)
        counted = gradient.movedim(classes, -1).ne(0).any(-1)
        if not counted.any():  # The divergence would be the mean over nothing, where the loss may be a number.
            return (1 - self.teacher_weight) * loss
        student, teacher = (each.movedim(classes, -1)[counted].float() for each in (logits, teacher_logits))
        return distilled(loss, student, teacher, None, self.teacher_weight, self.temperature)

    def _class_dimension(self, gradient: Tensor) -> int:
        if self._classes is None:
            dimensions = range(1, gradient.ndim)
            best = min(dimensions, key=lambda dimension: _imbalance(gradient, dimension))
            if _magnitude(gradient) < LEAST_GRADIENT:  # As where no label counts in this batch.
                return best
            self._classes = best
        return self._classes


def _gradient(loss: Tensor, logits: Tensor) -> Tensor:
    """The gradient of the loss with respect to the logits that it was computed from; its graph is kept.

    Raises:
        SeekingError: it was computed from others.
    """
    inputs: list[Tensor | GradientEdge] = [logits, *copied_from(logits)]
    for each in inputs if logits.requires_grad else ():
        (gradient,) = torch.autograd.grad(loss, each, retain_graph=True, allow_unused=True)
        if gradient is not None and gradient.shape == logits.shape:
            return gradient
    raise SeekingError(
        "the loss of the loss_fn is not computed from the logits that it returns, or inside a compiled model, so that "
        "one model cannot learn from the other one's; return those that it is computed from, set compile to no, set "
        "teach to 0, or give an objective"
    )


def _imbalance(gradient: Tensor, dimension: int) -> float:
    """The sums of a gradient over a dimension, by the sums of its magnitudes, in [0, 1]."""
    magnitude = _magnitude(gradient)
    return float(gradient.float().sum(dimension).abs().sum()) / magnitude if magnitude else 0.0


def _magnitude(gradient: Tensor) -> float:
    """The sum of the magnitudes."""
    return float(gradient.float().abs().sum())


def loss_of(loss_fn: LossFn, model: nn.Module, batch: Any) -> Any:
    """What a ``loss_fn`` gives; a note to its errors says what it takes, which other libraries' losses do not."""
    try:
        return loss_fn(model, batch)
    except (TypeError, AttributeError) as error:
        error.add_note(
            "a loss_fn takes the model and a batch, such as lambda model, batch: criterion(model(batch[0]), batch[1])"
        )
        raise


def loss_in(output: Any, source: str) -> Tensor:
    """The mean loss in what a ``loss_fn`` returns.

    Args:
        output: the loss, an output with ``.loss``, a mapping with ``loss``, or a tuple or list that begins with it.
        source: what returned it, for the error message.

    Raises:
        SeekingError: there is no floating-point tensor of one element.
    """
    loss: Any = output
    if isinstance(getattr(output, "loss", None), Tensor):
        loss = output.loss
    elif isinstance(output, Mapping):
        loss = output.get("loss", output)
    elif isinstance(output, tuple | list) and output:
        loss = output[0]
    if not isinstance(loss, Tensor):
        loss = output  # The message describes it.
    check_loss(loss, source)
    scalar: Tensor = loss
    return scalar


def logits_in(output: Any) -> Tensor:
    """The logits in what a ``loss_fn`` returns.

    Args:
        output: one with ``.logits``, or a mapping with ``logits``.

    Raises:
        SeekingError: there are none of floating point and two or more dimensions.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim > 1:
        return logits
    raise SeekingError(
        "teach lets one model learn from the other one's logits, and the loss_fn returns none with the loss; return an "
        "output with .loss and .logits, or a dictionary with both, set teach to 0, or give an objective"
    )


def check_same_shape(logits: Tensor, teacher_logits: Tensor) -> None:
    """Check that the logits of two models on one batch belong to each other.

    Raises:
        SeekingError: they have different shapes.
    """
    if logits.shape != teacher_logits.shape:
        raise SeekingError(
            f"the logits of the loss_fn have the shape {list(logits.shape)} with one model and "
            f"{list(teacher_logits.shape)} with the other; set teach to 0, or give both models the same outputs"
        )


def describe_objective(objective: Objective, method: str) -> str:
    """A method of an objective as error messages name it; a ``loss_fn`` stands for all of its objective."""
    return "loss_fn" if type(objective) is CustomLoss else f"{type(objective).__name__}.{method}"
