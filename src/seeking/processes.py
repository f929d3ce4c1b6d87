"""The processes of a run, as torchrun or accelerate have started them."""

import os

import torch
from accelerate.state import AcceleratorState, PartialState

from seeking.errors import SeekingError


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_here() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def this_process(device: str | None = None) -> PartialState:
    """What accelerate knows of this one: its device, its number, and how many there are.

    Args:
        device: as torch names it; if not given, that of an earlier call, else the accelerator, where there is one.

    Raises:
        SeekingError: there is no such device, or there are more processes on this machine than accelerators.
    """
    asked = _device(device) if device is not None else None
    here, accelerators = processes_here(), torch.accelerator.device_count()
    if PartialState._shared_state:
        now = PartialState()
        if asked is None or (asked.type == now.device.type and asked.index in (None, now.device.index)):
            return now
        if now.num_processes > 1:
            raise SeekingError(f"the processes of this run are on {now.device}, and cannot move to {asked}")
        AcceleratorState._reset_state(reset_partial_state=True)
    # Told that there is nothing but CPUs, accelerate makes one run of several processes on them, else it would not.
    cpu = not accelerators or (asked is not None and asked.type == "cpu")
    if not cpu and here > accelerators:
        raise SeekingError(
            f"{here} processes were started on a machine with {accelerators} accelerators; start {accelerators}, "
            "or give the device cpu"
        )
    if asked is not None and asked.index is not None:
        if here > 1:
            raise SeekingError(
                f"device is {asked}, but each of {here} processes takes one of its own; give {asked.type}"
            )
        torch.accelerator.set_device_index(asked.index)
    process = PartialState(cpu=cpu)
    if asked is not None and asked.index is not None:
        process.device = asked
    return process


def _device(name: str) -> torch.device:
    accelerator = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count()
    there = ["cpu", *(f"{accelerator.type}:{number}" for number in range(count) if accelerator)]
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SeekingError(f"device is {name!r}, which is none; here are {', '.join(there)}") from error
    if device.type != "cpu" and (not accelerator or device.type != accelerator.type or (device.index or 0) >= count):
        raise SeekingError(f"there is no device {name} on this machine; here are {', '.join(there)}")
    return torch.device("cpu") if device.type == "cpu" else device
