"""Re-estimate the running statistics of batch normalization."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from seeking.internals import BatchNorm


@torch.no_grad()
def recalibrate(
    model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], Any] | None = None
) -> None:
    """Replace the running statistics of every batch norm layer by their mean over these batches.

    Unlike ``torch.optim.swa_utils.update_bn``, this keeps all other layers in evaluation mode, so dropout draws no
    random numbers and does not change the statistics. It also takes a custom ``forward``.

    Args:
        model: the model to recalibrate, with its final weights.
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
        norm.momentum = None  # None makes torch average over all batches.
    try:
        for batch in batches:
            model(batch) if forward is None else forward(model, batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode
