"""Both widths at every batch, with in-place distillation and one optimizer."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from seeking.training.run import Batch, Run


def sandwich(batch: Batch, run: Run) -> None:
    """The larger model learns from the labels, the smaller one inside it from the larger one's outputs.

    Their gradients are summed before the step. With two sizes, the sandwich of Yu and Huang, "Universally Slimmable
    Networks and Improved Training Techniques" (arXiv 1903.05134), is its two slices of bread.
    """

    def loss_fn(model: nn.Module, micro_batch: Any) -> Tensor:
        logits = run.objective.logits(model, micro_batch)
        shared = run.pair.map.extract(dict(run.pair.motivated_model.named_parameters()))
        inputs, _ = run.objective.model_inputs(micro_batch)
        smaller = functional_call(run.base.train_mode(), shared, (inputs,))
        return run.objective.loss_of_logits(logits, micro_batch) + F.cross_entropy(
            smaller, logits.detach().softmax(dim=-1)
        )

    with run.pair.motivated():
        run.step(run.motivated, batch, loss_fn, also=[run.base])
