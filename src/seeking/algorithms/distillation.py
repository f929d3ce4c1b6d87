"""Distillation from a trained teacher."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import copied
from seeking.errors import RunWarning
from seeking.training.cost import count_flops
from seeking.training.run import Algorithm, Batch, Run
from seeking.training.samples import sample_count
from seeking.training.teaching import ignores_teacher


def distillation(teacher: nn.Module) -> Algorithm:
    """Train one model on the labels and on the outputs of a trained teacher.

    The objective sets the weight of the teacher. The forward passes of the teacher count as training FLOPs.

    Args:
        teacher: the trained model; it is put into evaluation mode and its parameters are frozen.
    """
    teacher.eval().requires_grad_(False)
    flops: list[float] = []

    def distilled(batch: Batch, run: Run) -> None:
        (student,) = run.learners.values()
        teacher.to(run.stepper.accelerator.device)
        if not flops:
            flops.append(_forward_flops(teacher, run, batch[0]))
            if ignores_teacher(run.objective, teacher, batch[0]):
                warnings.warn(
                    f"{type(run.objective).__name__}.loss puts out the same whatever teacher_logits it gets: the "
                    f"{student.name} model does not learn from the teacher",
                    RunWarning,
                    stacklevel=2,
                )

        def loss_fn(model: nn.Module, micro_batch: Any) -> Tensor:
            with torch.no_grad(), run.autocast():
                teacher_logits = run.objective.logits(teacher, copied(micro_batch))
            return run.objective.loss(model, micro_batch, teacher_logits)

        run.step(student, batch, loss_fn, other_flops=flops[0])

    return distilled


def _forward_flops(teacher: nn.Module, run: Run, micro_batch: Any) -> float:
    forward, _ = count_flops(
        teacher, lambda model, batch: run.objective.logits(model.requires_grad_(), batch).sum(), micro_batch
    )
    return forward / sample_count(micro_batch)
