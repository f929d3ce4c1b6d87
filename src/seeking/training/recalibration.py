"""Statistics of batch normalisation, estimated anew."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from seeking.internals import BatchNorm


@torch.no_grad()
def recalibrate(
    model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], Any] | None = None
) -> None:
    """Replace the running statistics of every batch norm by their mean over these batches.

    Unlike in ``torch.optim.swa_utils.update_bn``, all other layers are in evaluation mode meanwhile: dropout draws no
    random numbers and does not disturb the statistics, and ``forward`` may be anything.

    Args:
        model: to be recalibrated, with the weights that it is to be evaluated with.
        batches: training batches.
        forward: runs the model on a batch; ``model(batch)`` if not given.
    """
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    if not norms:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
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
        for module, mode in modes:
            module.training = mode
