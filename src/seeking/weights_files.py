"""Weights of one model in one file."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from seeking.errors import RunError, SeekingError


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load weights into a model.

    Args:
        model: the model that they are of.
        path: a ``.safetensors`` file, or one of ``torch.save`` that holds a ``state_dict``, alone or under
            ``state_dict`` or ``model``. Nothing in it is executed.

    Raises:
        SeekingError: the file cannot be read, or its weights are of another model.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            load_model(model, path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            for key in ("state_dict", "model"):
                content = content.get(key, content)
            model.load_state_dict(content)
    except OSError as error:
        raise SeekingError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, RuntimeError, AttributeError, TypeError, EOFError, ValueError) as error:
        raise SeekingError(f"{path}: not weights of this {type(model).__name__}: {error}") from error
    except Exception as error:  # Unpickling raises what it likes.
        raise SeekingError(f"{path}: not a file of weights ({type(error).__name__}: {error})") from error


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights as safetensors, whole or not at all; tied tensors once.

    Raises:
        RunError: the file cannot be written.
    """
    path = Path(path)
    beside = path.with_suffix(".writing")
    try:
        save_model(model, str(beside))
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: cannot be written ({error})") from error
