"""What makes the same training faster: numbers of fewer bits, layouts, fused optimizers, compilation."""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from seeking.errors import RunWarning, SeekingError


def precision(asked: str, device: torch.device) -> str:
    """``no``, ``bf16`` or ``fp16``; ``auto`` is bf16 where the hardware has it.

    Raises:
        SeekingError: the device does not have it.
    """
    if asked == "auto":
        return "bf16" if _has_bf16(device) else "no"
    if asked == "fp16" and device.type == "cpu":
        raise SeekingError("precision is fp16, which needs an accelerator, and the run is on the CPU; use bf16 or no")
    if asked == "bf16" and device.type == "cuda" and not _has_bf16(device):
        name = torch.cuda.get_device_name(device)
        raise SeekingError(f"precision is bf16, which {name} does not have; use fp16 or no")
    return asked


def _has_bf16(device: torch.device) -> bool:
    """Whether matrix products are faster in bfloat16; a CPU without AMX only emulates them."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


def to_channels_last(models: Sequence[nn.Module], accepts: Callable[[nn.Module], object]) -> None:
    """Store the weights of convolutions with the channels last, as matrix units want them; the numbers stay the same.

    What the convolutions then give has its channels last, too, and not every model takes that: it is tried, and undone
    with a warning where a model refuses.

    Args:
        models: all of them, or none.
        accepts: calls a model with real data.
    """
    convolutions = [
        layer for model in models for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    if not convolutions:
        return
    for layer in convolutions:
        layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    try:
        for model in models:
            accepts(model)
    except Exception as error:
        for layer in convolutions:
            layer.weight.data = layer.weight.data.contiguous()
        with contextlib.suppress(Exception):  # What is wrong with it anyway is said elsewhere.
            accepts(model)
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(
                f"{type(model).__name__} does not take tensors whose channels are last ({reason}), so they are not; "
                "reshape in place of view cures most models",
                RunWarning,
                stacklevel=2,
            )


def checkpoint_activations(module: nn.Module, name: str) -> None:
    """Compute activations again in the backward pass instead of keeping them.

    Raises:
        SeekingError: the model does not say how.
    """
    if hasattr(module, "set_grad_checkpointing"):  # timm's
        switch: Any = module.set_grad_checkpointing
        switch(True)
    elif hasattr(module, "gradient_checkpointing_enable"):  # transformers'
        switch = module.gradient_checkpointing_enable
        switch(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        raise SeekingError(
            f"the {name} model ({type(module).__name__}) has neither set_grad_checkpointing (timm) nor "
            "gradient_checkpointing_enable (transformers); turn checkpoint_activations off"
        )


def compile_in_place(model: nn.Module, mode: str) -> None:
    """Have a model compile itself when it is first called; where that fails it goes on uncompiled."""
    model.compile(mode=None if mode == "default" else mode)
    ready: Any = model._compiled_call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return ready(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"{type(model).__name__} cannot be compiled ({reason}) and runs uncompiled", RunWarning, stacklevel=2
            )
            model._compiled_call_impl = None
            return model(*args, **kwargs)

    model._compiled_call_impl = call
