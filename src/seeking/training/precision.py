"""Mixed precision, and the accelerator that has it."""

import warnings

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized

from seeking.distributed.processes import this_process
from seeking.errors import RunWarning, SeekingError
from seeking.internals import has_amx, reset_accelerator
from seeking.training.config import TrainConfig

MADE_HERE = "made_by_seeking"
"""An attribute of accelerate's state, which all accelerators share, that tells it from one of the user's."""


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Create the accelerator for the device and precision of the options."""
    process = this_process(config.device)
    mixed = resolve_precision(config.precision, process.device)
    earlier = AcceleratorState().mixed_precision if is_initialized() else mixed
    if earlier != mixed:
        if not hasattr(AcceleratorState(), MADE_HERE):  # Else an earlier trainer in this process has set it.
            warnings.warn(
                f"an accelerator of this program has mixed precision {earlier}; it is {mixed} from now on, as that of "
                f"the trainer; pass yours (Trainer(accelerator=...)), or set precision to {earlier}",
                RunWarning,
                stacklevel=3,
            )
        reset_accelerator()
    started = is_initialized()
    accelerator = Accelerator(mixed_precision=mixed, cpu=process.device.type == "cpu")
    if not started:
        setattr(accelerator.state, MADE_HERE, True)
    return accelerator


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve ``auto`` to ``bf16`` if the hardware supports it, else to ``no``; check the other values.

    Raises:
        SeekingError: the device does not support the precision.
    """
    if precision == "auto":
        return "bf16" if _has_bf16(device) else "no"
    if precision == "fp16" and device.type == "cpu":
        raise SeekingError("precision is fp16, which needs an accelerator, and the run is on the CPU; use bf16 or no")
    if precision == "bf16" and device.type == "cuda" and not _has_bf16(device):
        name = torch.cuda.get_device_name(device)
        raise SeekingError(f"precision is bf16, which {name} does not support; use fp16 or no")
    return precision


def _has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies matrices natively in bfloat16; a CPU without AMX emulates it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and has_amx()
