"""The processes of a run, as torchrun or accelerate have started them."""

import os

import torch
from accelerate import PartialState

from seeking.errors import SeekingError


def processes_here() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def this_process() -> PartialState:
    """What accelerate knows of this one: its device, its number, and how many there are.

    Raises:
        SeekingError: there are more processes on this machine than accelerators.
    """
    # Told that there is nothing but CPUs, accelerate makes one run of several processes on them, else it would not.
    cpu = not torch.accelerator.is_available()
    accelerators, started = torch.accelerator.device_count(), processes_here()
    if not cpu and started > accelerators:
        raise SeekingError(
            f"{started} processes were started on a machine with {accelerators} accelerators; start {accelerators}, "
            "or set CUDA_VISIBLE_DEVICES to nothing to train on the CPU"
        )
    return PartialState(cpu=cpu)
