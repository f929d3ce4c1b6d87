"""Models that the Hugging Face Trainer trains, and where the motivated one is saved."""

from pathlib import Path
from typing import Any

from torch import nn

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
