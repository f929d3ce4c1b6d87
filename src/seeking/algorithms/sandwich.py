"""Sandwich training: both models on every batch, with in-place distillation and one optimizer."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from seeking.copies import copied
from seeking.errors import SeekingError
from seeking.training.run import Batch, Run


def sandwich(batch: Batch, run: Run) -> None:
    """Train the larger model on the labels, and the smaller one inside it on the outputs of the larger one.

    The gradients are summed before the step. This is the sandwich rule of Yu and Huang, "Universally Slimmable Networks
    and Improved Training Techniques" (arXiv 1903.05134), for two sizes.

    Raises:
        SeekingError: the base has tensors of its own.
    """

    if run.pair.map.own:
        raise SeekingError("sandwich training has one optimizer, so that the base can have no tensors of its own")

    def loss_fn(model: nn.Module, micro_batch: Any) -> Tensor:
        logits = run.objective.logits(model, copied(micro_batch))
        shared = run.pair.map.extract(dict(run.pair.motivated_model.named_parameters()))
        inputs, _ = run.objective.model_inputs(micro_batch)
        smaller = functional_call(run.base.train_mode(), shared, (inputs,))
        return run.objective.loss_of_logits(logits, micro_batch) + F.cross_entropy(
            smaller, logits.detach().softmax(dim=-1)
        )

    with run.pair.motivated():
        run.step(run.motivated, batch, loss_fn, also=[run.base])
