"""Memory formats, compilation and activation checkpointing."""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from seeking.errors import RunWarning, SeekingError
from seeking.internals import dynamo_errors, undo_compilation, wrap_compiled_call


def to_channels_last(models: Sequence[nn.Module], run: Callable[[nn.Module], object]) -> None:
    """Convert the weights of convolutions to the ``channels_last`` memory format.

    The outputs of the convolutions are then ``channels_last``, too, which some models do not support. If a model fails,
    all conversions are undone with a warning.

    Args:
        models: the models; either all of them are converted or none.
        run: runs a model on real data.
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
            run(model)
    except Exception as error:
        for layer in convolutions:
            layer.weight.data = layer.weight.data.contiguous()
        with contextlib.suppress(Exception):  # The preflight reports a model that fails either way.
            run(model)
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(
                f"{type(model).__name__} does not support channels_last tensors ({reason}), so channels_last is off; "
                "replacing view by reshape fixes most models",
                RunWarning,
                stacklevel=2,
            )


def checkpoint_activations(module: nn.Module, name: str) -> None:
    """Recompute activations in the backward pass instead of keeping them (activation checkpointing).

    Raises:
        SeekingError: the model has no method for it.
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
    """Compile a model on its first call; if that fails, it runs uncompiled, with a warning."""
    model.compile(mode=None if mode == "default" else mode)

    def with_fallback(compiled: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return compiled(*args, **kwargs)
            except dynamo_errors() as error:
                reason = str(error).strip().splitlines()[0]
                warnings.warn(
                    f"{type(model).__name__} cannot be compiled ({reason}) and runs uncompiled",
                    RunWarning,
                    stacklevel=2,
                )
                undo_compilation(model)
                return model(*args, **kwargs)

        return call

    wrap_compiled_call(model, with_fallback)
