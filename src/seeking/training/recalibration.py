"""Statistics of batch normalisation, estimated anew."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from seeking.internals import BatchNorm
from seeking.training.modes import evaluating


@torch.no_grad()
def recalibrate(
    model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], Any] | None = None
) -> None:
    """Replace the running statistics of every batch norm by their mean over these batches.

    Unlike in ``torch.optim.swa_utils.update_bn``, all other layers are in evaluation mode meanwhile: dropout draws no
    random numbers and does not disturb the statistics, and ``forward`` may be anything. Batch norms that are in
    evaluation mode inside a model in training mode are frozen, and keep their statistics.

    Args:
        model: to be recalibrated, with the weights that it is to be evaluated with.
        batches: training batches.
        forward: runs the model on a batch; ``model(batch)`` if not given.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]
    if model.training:
        norms = [norm for norm in norms if norm.training]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for a plain mean over all batches.
        try:
            for batch in batches:
                model(batch) if forward is None else forward(model, batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
