"""Means over all processes, and decisions that all of them take alike."""

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


def of_first_process(decision: bool, device: torch.device) -> bool:
    """The first process's decision; all processes must call this.

    A condition may draw random numbers, which differ between processes, or look at a clock. If only some of the
    processes then took a step, they would wait for each other forever.

    Args:
        decision: this process's own.
        device: device of the process group.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return decision
    flag = torch.tensor(float(decision), device=device)
    torch.distributed.broadcast(flag, src=0)
    return bool(flag)
