"""The processes of a run, as started by torchrun or accelerate."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate.state import PartialState

from seeking.errors import SeekingError
from seeking.internals import accelerator_started, reset_accelerator

STARTED_BY = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that a launcher sets."""

T = TypeVar("T")


def cores() -> int:
    """Number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_process_count() -> int:
    """Number of processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def this_process(device: str | None = None) -> PartialState:
    """Accelerate's state of this process: its device, its index and the number of processes.

    Args:
        device: a torch device; by default that of an earlier call, or the accelerator if there is one.

    Raises:
        SeekingError: the device does not exist, or this machine has more processes than accelerators.
    """
    requested = _device(device) if device is not None else None
    local, accelerators = local_process_count(), torch.accelerator.device_count()
    if accelerator_started():
        current = PartialState()
        if requested is None or (
            requested.type == current.device.type and requested.index in (None, current.device.index)
        ):
            return current
        if current.num_processes > 1:
            raise SeekingError(f"the processes of this run are on {current.device}, and cannot move to {requested}")
        reset_accelerator(with_processes=True)
    # Accelerate only joins several CPU processes into one run if cpu is set.
    cpu = not accelerators or (requested is not None and requested.type == "cpu")
    if not cpu and local > accelerators:
        raise SeekingError(
            f"{local} processes were started on a machine with {accelerators} accelerators; start {accelerators}, "
            "or give the device cpu"
        )
    if requested is not None and requested.index is not None:
        if local > 1:
            raise SeekingError(
                f"device is {requested}, but each of {local} processes needs its own; give {requested.type}"
            )
        torch.accelerator.set_device_index(requested.index)
    try:
        process = PartialState(cpu=cpu)
    except (ValueError, RuntimeError) as error:
        given = [f"{name}={os.environ[name]}" for name in STARTED_BY if name in os.environ]
        if not given:
            raise
        reset_accelerator(with_processes=True)
        raise SeekingError(
            f"the environment ({' '.join(given)}) says that this is one of several processes, but they cannot be "
            f"joined ({error}); start them with torchrun or accelerate launch, or unset these variables"
        ) from error
    if requested is not None and requested.index is not None:
        process.device = requested
    return process


def from_first_process(compute: Callable[[], T]) -> T:
    """What the first process computes; all processes must call this.

    Raises:
        SeekingError: computing it raises an error; in the first process, that error.
    """
    return scatter(lambda: [compute()] * PartialState().num_processes)


def scatter(compute: Callable[[], Sequence[T]]) -> T:
    """What the first process computes for this one; all processes must call this.

    Args:
        compute: called in the first process only; an item for each process, which can be pickled.

    Raises:
        SeekingError: computing them raises an error; in the first process, that error.
    """
    process = PartialState()
    if process.num_processes == 1:
        return compute()[0]
    failure: Exception | None = None
    outgoing: list[tuple[Any, str]] | None = None
    if process.is_main_process:
        try:
            outgoing = [(item, "") for item in compute()]
        except Exception as error:
            failure = error
            outgoing = [(None, f"{type(error).__name__}: {error}")] * process.num_processes
    received: list[Any] = [None]
    torch.distributed.scatter_object_list(received, outgoing)
    if failure:
        raise failure
    ((value, reason),) = received
    if reason:
        raise SeekingError(f"the first process fails: {reason}")
    item: T = value
    return item


def _device(name: str) -> torch.device:
    accelerator = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count()
    available = ["cpu", *(f"{accelerator.type}:{number}" for number in range(count) if accelerator)]
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SeekingError(
            f"device is {name!r}, which is not a device; available are {', '.join(available)}"
        ) from error
    if device.type != "cpu" and (not accelerator or device.type != accelerator.type or (device.index or 0) >= count):
        raise SeekingError(f"there is no device {name} on this machine; available are {', '.join(available)}")
    return torch.device("cpu") if device.type == "cpu" else device
