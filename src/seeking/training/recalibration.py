"""Re-estimate the running statistics of batch normalization."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from seeking.errors import SeekingError
from seeking.internals import BatchNorm
from seeking.training.modes import evaluating


def norms_with_statistics(model: nn.Module) -> list[Any]:
    """The batch norm layers of a model whose running statistics are estimated, and are not frozen."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]
    return [norm for norm in norms if norm.training] if model.training else norms


@torch.no_grad()
def recalibrate(
    model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], Any] | None = None
) -> None:
    """Replace the running statistics of every batch norm layer by their mean over these batches.

    Unlike ``torch.optim.swa_utils.update_bn``, this keeps all other layers in evaluation mode, so dropout draws no
    random numbers and does not change the statistics. It also takes a custom ``forward``. Batch norm layers in
    evaluation mode inside a model in training mode are frozen, and keep their statistics.

    Args:
        model: the model to recalibrate, with its final weights.
        batches: training batches.
        forward: runs the model on a batch; ``model(batch)`` if not given.

    Raises:
        SeekingError: there is no batch. After any error, the statistics are as they were.
    """
    norms = norms_with_statistics(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    before, empty = [buffer.clone() for buffer in buffers], True
    with evaluating(model):
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # None makes torch average over all batches.
        try:
            for batch in batches:
                empty = False
                model(batch) if forward is None else forward(model, batch)
            if empty:
                raise SeekingError("batches has no batch; give some, in an iterable that starts anew each time")
        except BaseException:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
            raise
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
