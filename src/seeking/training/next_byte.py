"""The objective of language models over bytes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from seeking.training.config import BestMode
from seeking.training.objective import LossFn, Objective, distilled
from seeking.training.samples import target_count


@dataclass
class NextByte(Objective):
    """Cross-entropy of the byte that follows each byte, on batches of ``(inputs, targets)``; measured in bits per byte.

    Both are int64 ``[samples, bytes]``. With a teacher, the loss is ``(1 - teacher_weight)`` times the cross-entropy
    plus ``teacher_weight`` times the divergence from the teacher at the temperature, scaled by its square.

    Attributes:
        label_smoothing: label smoothing in training.
        teacher_weight: weight of the divergence, in [0, 1].
        temperature: divides the logits of both models in the divergence.
    """

    METRICS: ClassVar[Mapping[str, BestMode]] = {"loss": "min", "bits_per_byte": "min"}
    """That an evaluation measures, and which way each is better."""

    label_smoothing: float = 0.0
    teacher_weight: float = 0.5
    temperature: float = 1.0

    def loss_of_logits(self, logits: Tensor, batch: Any, teacher_logits: Tensor | None = None) -> Tensor:
        """The mean loss of a byte, in nats."""
        hard = F.cross_entropy(logits.flatten(0, 1), batch[1].flatten(), label_smoothing=self.label_smoothing)
        if teacher_logits is None:
            return hard
        student, teacher = (each.float().flatten(0, 1) for each in (logits, teacher_logits))
        return distilled(hard, student, teacher, batch[1], self.teacher_weight, self.temperature)

    def logits(self, model: nn.Module, batch: Any) -> Tensor:
        """The model's logits, shape ``[samples, bytes, 256]``; of an output object, its ``logits``."""
        output = model(batch[0])
        logits: Tensor = getattr(output, "logits", output)
        return logits

    def count(self, batch: Any) -> int:
        """Number of targets that are not -100."""
        return target_count(batch)

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """The mean loss of each sample's bytes, in nats, and the same in bits."""
        logits = self.logits(model, batch).float()
        losses = F.cross_entropy(logits.transpose(1, 2), batch[1], reduction="none").mean(dim=1)
        return {"loss": losses, "bits_per_byte": losses / math.log(2)}

    def model_inputs(self, batch: Any) -> tuple[Any, LossFn | None]:
        """The inputs without the targets."""
        return batch[0], None
