"""Example inputs: enough to run a model without data."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from seeking.internals import Convolution

FIRST_LAYERS = (Convolution, nn.Linear, nn.Embedding, nn.RNNBase)
"""Layers that tell what a model takes."""


def example_inputs(model: nn.Module) -> Iterator[Any]:
    """Inputs that a model may take, the likeliest first.

    Models of transformers tell by their configuration, models of timm by theirs; of others the first layer does, with
    images of 224, 64, 32 and 28 pixels a side.

    Args:
        model: any model.

    Yields:
        Batches of two, of seeded noise, as ``model(batch)`` or ``model(**batch)`` takes them.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    generator = torch.Generator("cpu").manual_seed(0)

    def noise(*shape: int) -> Tensor:
        # On the CPU whatever the default device is, such as meta.
        return torch.randn(shape, generator=generator, device="cpu").to(dtype)

    if hasattr(model, "config") and isinstance(getattr(model, "main_input_name", None), str):
        with contextlib.suppress(AttributeError):  # One that does not tell.
            yield _transformers(model, noise)
        return
    first = next((m for m in model.modules() if isinstance(m, FIRST_LAYERS)), None)
    if isinstance(first, nn.Embedding):
        yield torch.arange(16, device="cpu").view(2, 8) % first.num_embeddings
    elif isinstance(first, Convolution):
        size = image_size(model)
        for side in [size] if size else [224, 64, 32, 28]:
            yield noise(2, first.in_channels, *[side] * (first.weight.ndim - 2))
    elif isinstance(first, nn.RNNBase):
        yield noise(2, 4, first.input_size)
    elif isinstance(first, nn.Linear):
        yield noise(2, first.in_features)
        yield noise(2, 4, first.in_features)


def image_size(model: nn.Module) -> int | None:
    """Side of the images that a model of timm takes, in pixels; None if it does not tell."""
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size:
        return int(size[0])
    config = getattr(model, "default_cfg", None) or {}
    return int(config["input_size"][-1]) if config.get("input_size") else None


def _transformers(model: Any, noise: Callable[..., Tensor]) -> dict[str, Tensor]:
    def setting(name: str) -> int:
        for config in (model.config, getattr(model.config, "vision_config", None)):
            if isinstance(getattr(config, name, None), int):
                return int(getattr(config, name))
        raise AttributeError(name)

    tokens = torch.arange(4, 20, device="cpu").view(2, 8)
    parameters = inspect.signature(model.forward).parameters
    batch: dict[str, Tensor] = {}
    if "pixel_values" in parameters:
        try:
            side = setting("image_size")
        except AttributeError:
            side = 224
        batch["pixel_values"] = noise(2, setting("num_channels"), side, side)
    if "input_features" in parameters:
        batch["input_features"] = noise(2, setting("num_mel_bins"), 2 * setting("max_source_positions"))
    if "input_values" in parameters:
        batch["input_values"] = noise(2, 16000)
    if "input_ids" in parameters:
        batch["input_ids"] = tokens
    if "decoder_input_ids" in parameters:
        batch["decoder_input_ids"] = tokens
    return batch
