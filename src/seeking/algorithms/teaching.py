"""One of the two models learns from what the other one puts out on the same batch."""

from typing import Any

from torch import Tensor, nn

from seeking.training.objective import Objective, loss_and_logits


class Lesson:
    """The logits of a teacher on the micro-batches of one batch, and the losses of both models.

    Args:
        objective: that says how the loss weights the teacher's logits.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._logits: list[Tensor] = []
        self._next = 0

    def give(self, model: nn.Module, micro_batch: Any) -> Tensor:
        """The teacher's loss; its logits are kept, without a graph."""
        loss, logits = loss_and_logits(self._objective, model, micro_batch)
        self._logits.append(logits.detach())
        return loss

    def take(self, model: nn.Module, micro_batch: Any) -> Tensor:
        """The student's loss, micro-batch by micro-batch; without a teacher if none has given anything."""
        logits = self._logits[self._next] if self._logits else None
        self._next += 1
        return self._objective.loss(model, micro_batch, logits)
