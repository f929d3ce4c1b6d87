"""Mixed precision."""

import torch

from seeking.errors import SeekingError
from seeking.internals import has_amx


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
