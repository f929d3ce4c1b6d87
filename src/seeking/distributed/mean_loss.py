"""Means over all processes."""

import torch
import torch.distributed
from torch import Tensor


def mean_loss(loss: Tensor) -> float:
    """The mean of a loss over all processes, so that a condition takes the same decision in each of them.

    All processes must call this. In a single process, or if ``torch.distributed`` is not initialized, it is
    ``loss.item()``.

    Args:
        loss: a scalar tensor on the device of the process group.
    """
    return mean_over_processes(loss.detach().reshape(1).clone())[0]


def mean_over_processes(values: Tensor) -> list[float]:
    """The mean of each value over all processes; all processes must call this.

    Args:
        values: shape ``[n]``, float, on the device of the process group; may be overwritten.
    """
    processes = 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size()
        torch.distributed.all_reduce(values)
    return [float(value) / processes for value in values.tolist()]
