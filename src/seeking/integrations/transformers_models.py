"""Models that the Hugging Face Trainer trains, and where the motivated one is saved."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

MOTIVATED = "motivated"
"""Name of the motivated model's folder, inside that of the base, and of its metrics."""


def has_adapters(model: nn.Module) -> bool:
    """Whether a model is one of the library peft, of which only adapters are saved."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def folder_of(model: nn.Module) -> Path:
    """The motivated model's folder, relative to that of the base.

    Transformers takes adapters in a folder below those of the base for more adapters of the base, so they lie deeper.
    """
    return Path(MOTIVATED, "adapter") if has_adapters(model) else Path(MOTIVATED)


def load_model(model: Any, folder: Path) -> None:
    """Load into a model what the Trainer has saved of it."""
    import transformers

    if isinstance(model, transformers.PreTrainedModel):
        model.load_state_dict(type(model).from_pretrained(folder, config=model.config).state_dict())
    elif has_adapters(model):
        model.load_adapter(str(folder), model.active_adapter, is_trainable=True)
    else:
        from safetensors.torch import load_model as load

        load(model, folder / "model.safetensors")


def add_noise(model: Any, alpha: float) -> RemovableHandle:
    """Add noise to the embeddings of a model while it trains, as ``neftune_noise_alpha`` does (arXiv 2310.05914).

    Args:
        model: of transformers, or one with adapters.
        alpha: the noise is at most this, over the root of tokens times channels.

    Returns:
        A handle that removes it.
    """

    def noisy(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        most = alpha / math.sqrt(output.size(1) * output.size(2))
        return output + torch.empty_like(output).uniform_(-most, most)

    inner = model.get_base_model() if has_adapters(model) else model
    embeddings: nn.Module = inner.get_input_embeddings()
    return embeddings.register_forward_hook(noisy)
