"""The objective of models that put out values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from seeking.errors import SeekingError
from seeking.forward import call_with_one
from seeking.training.config import BestMode
from seeking.training.objective import LossFn, Objective, labelled
from seeking.training.samples import sample_count
from seeking.weights_map import in_double


@dataclass
class Regression(Objective):
    """Mean squared error on batches of ``(inputs, targets)``; measured as RMSE and MAE as well.

    Targets are numbers of any dtype, ``[samples]`` or of the shape that the models put out; an output of one number a
    sample may be ``[samples, 1]``. With a teacher, the loss is ``(1 - teacher_weight)`` times the error from the
    targets plus ``teacher_weight`` times that from the teacher's outputs.

    Attributes:
        teacher_weight: weight of the error from the teacher, in [0, 1].
        unit: what a target of 1 is in the unit of ``rmse`` and ``mae``: the standard deviation that targets were
            divided by. The loss is that of the targets as they are.
    """

    METRICS: ClassVar[Mapping[str, BestMode]] = {"loss": "min", "mae": "min", "rmse": "min"}
    """That an evaluation measures, and which way each is better."""

    teacher_weight: float = 0.5
    unit: float = 1.0

    def loss_of_logits(self, logits: Tensor, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """The mean squared error, given the model's outputs."""
        hard = F.mse_loss(logits, _targets(batch, logits))
        if teacher_logits is None:
            return hard
        soft = F.mse_loss(logits, teacher_logits.to(logits.dtype))
        return (1 - self.teacher_weight) * hard + self.teacher_weight * soft

    def logits(self, model: nn.Module, batch: Any) -> Tensor:
        """The model's output; of an output object, its ``logits``."""
        output = model(labelled(batch)[0])
        values: Tensor = getattr(output, "logits", output)
        return values

    def count(self, batch: Any) -> int:
        """Number of samples."""
        return sample_count(batch)

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """The squared error of each sample, as ``loss``, and its absolute error, as ``mae``."""
        outputs = in_double(self.logits(model, batch))
        errors = (outputs - _targets(batch, outputs)).reshape(len(outputs), -1)
        return {"loss": errors.square().mean(1), "mae": self.unit * errors.abs().mean(1)}

    def summarize(self, means: Mapping[str, float]) -> Mapping[str, float]:
        """The means over all samples, and the root of the mean squared error, as ``rmse``."""
        return {**means, "rmse": self.unit * math.sqrt(means["loss"])}

    def model_inputs(self, batch: Any) -> tuple[Any, LossFn | None]:
        """The inputs without the targets."""
        return labelled(batch)[0], call_with_one


def _targets(batch: Any, outputs: Any) -> Tensor:
    """The targets of a batch, in the shape of the outputs.

    Raises:
        SeekingError: one would be broadcast to the other, so that each output would be compared with all targets.
    """
    targets = labelled(batch)[1]
    if not isinstance(outputs, Tensor):
        raise SeekingError(f"the model puts out a {type(outputs).__name__}, not a tensor; give the Trainer a loss_fn")
    if _of_one(outputs) != _of_one(targets) or targets.is_complex():
        raise SeekingError(
            f"the targets are {str(targets.dtype).removeprefix('torch.')} of shape {list(targets.shape)}, and the "
            f"model puts out {list(outputs.shape)}; give it as many outputs as a sample has values, such as by "
            "num_classes, or give the Trainer a loss_fn"
        )
    return targets.to(outputs).reshape(outputs.shape)


def _of_one(values: Tensor) -> list[int]:
    """The shape without a last dimension of one, beside that of the samples."""
    shape = list(values.shape)
    return shape[:-1] if len(shape) == 2 and shape[-1] == 1 else shape
