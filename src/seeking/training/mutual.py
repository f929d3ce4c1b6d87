"""Both models learn from what the other one puts out on the same batch."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from seeking.conditions import Outcome
from seeking.distributed.mean_loss import mean_over_processes
from seeking.training.objective import Objective, loss_and_logits
from seeking.training.run import Batch, Run


def mutual_gradients(run: Run, batch: Batch) -> tuple[Outcome, Outcome]:
    """Compute the gradients of both models, each of which is taught by the other one; updates must follow.

    Each runs once, so that this costs what two steps without a teacher do. Call it inside ``run.synced("motivated")``.

    Source: Zhang et al., "Deep Mutual Learning" (arXiv 1706.00384).

    Returns:
        What is known of the base, and of the motivated model.
    """
    objective = run.objective
    micro_batches = run.micro_batches(batch)
    weights = iter(micro_batches.weights)
    mean = 0.0

    def both(model: nn.Module, micro_batch: Any) -> Tensor:
        nonlocal mean
        with run.stepper.lending.lent(micro_batch, "base model") as lent:
            smaller = loss_and_logits(objective, run.base.model, lent)
            larger = loss_and_logits(objective, model, micro_batch)
            base_loss = _taught(objective, *smaller, lent, larger[1].detach())
            loss = _taught(objective, *larger, micro_batch, smaller[1].detach())
        if weight := next(weights):  # The mean over no targets is NaN.
            mean += weight * float(base_loss.detach())
        return base_loss + loss

    outcome = run.gradient(run.motivated, micro_batches, both, also=(run.base,))
    (mean,) = mean_over_processes(torch.tensor([mean], device=run.stepper.accelerator.device))
    flops = micro_batches.samples * run.cost.of_sample("base")
    base = Outcome(loss=mean, grad_norm=math.nan, flops=flops)
    return base, dataclasses.replace(outcome, loss=outcome.loss - mean, flops=outcome.flops - flops)


def _taught(objective: Objective, loss: Tensor, logits: Tensor, batch: Any, teacher_logits: Tensor) -> Tensor:
    """The loss of a student whose loss without a teacher, and whose logits, are known."""
    if hasattr(objective, "taught"):  # By a loss_fn, the loss is not one of logits alone.
        taught: Tensor = objective.taught(loss, logits, teacher_logits)
        return taught
    return objective.loss_of_logits(logits, batch, teacher_logits)
