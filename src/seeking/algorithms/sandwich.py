"""Sandwich training: both models on every batch, with in-place distillation and one optimizer."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from seeking.copies import copied
from seeking.errors import SeekingError
from seeking.training.objective import Objective
from seeking.training.run import Batch, Run


def sandwich(batch: Batch, run: Run) -> None:
    """Train the larger model on the labels, and the smaller one inside it on the outputs of the larger one.

    The gradients are summed before the step. This is the sandwich rule of Yu and Huang, "Universally Slimmable Networks
    and Improved Training Techniques" (arXiv 1903.05134), for two sizes. The smaller model's loss is the objective's
    with ``teacher_logits``, at a ``teacher_weight`` and a ``temperature`` of 1, if it has these attributes; so labels
    of -100 do not count in it either.

    Raises:
        SeekingError: the base has tensors of its own.
    """

    if run.pair.map.own:
        raise SeekingError("sandwich training has one optimizer, so that the base can have no tensors of its own")
    objective, of_student = run.objective, _of_student(run.objective)

    def loss_fn(model: nn.Module, micro_batch: Any) -> Tensor:
        logits = objective.logits(model, copied(micro_batch))
        shared = run.pair.map.extract(dict(run.pair.motivated_model.named_parameters()))
        smaller = objective.logits(_Inside(run.base.train_mode(), shared), copied(micro_batch))
        loss = objective.loss_of_logits(logits, copied(micro_batch))
        return loss + of_student.loss_of_logits(smaller, micro_batch, logits.detach())

    with run.pair.motivated():
        run.step(run.motivated, batch, loss_fn, also=[run.base])


class _Inside(nn.Module):
    """A model with tensors of another one in the place of its parameters."""

    def __init__(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.module, self.tensors = module, dict(tensors)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return functional_call(self.module, self.tensors, inputs, named)


def _of_student(objective: Objective) -> Objective:
    """The same objective, for a student that learns from the teacher alone."""
    student = copy.copy(objective)
    for name in ("teacher_weight", "temperature"):
        if hasattr(student, name):
            setattr(student, name, 1.0)
    return student
