"""Weights of one model in one file."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_file
from torch import Tensor, nn

from seeking.errors import RunError, RunWarning, SeekingError
from seeking.files import open_file, whole


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


def load_fitting(model: nn.Module, path: Path) -> None:
    """Load what fits of a run's weights, such as all but a head for other classes; a warning names the rest.

    Raises:
        SeekingError: the file cannot be read, or its names are not the model's.
    """
    here = model.state_dict()
    try:
        with safe_open(path, "pt") as file:
            there = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SeekingError(f"{path}: cannot be read ({error})") from error
    if there.keys() != here.keys():
        odd = ", ".join(sorted(there.keys() ^ here.keys())[:3])
        raise SeekingError(f"{path}: not weights of this {type(model).__name__}: {odd} on one side alone")
    other = [name for name, tensor in there.items() if tensor.shape != here[name].shape]
    if other:
        warnings.warn(f"{path}: of other shapes, so not taken: {', '.join(other)}", RunWarning, stacklevel=2)
    model.load_state_dict({**there, **{name: here[name] for name in other}})


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights as safetensors, whole or not at all; tied tensors once.

    Raises:
        RunError: the file cannot be written.
    """
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in state.items():
        first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,), name)
    write_tensors({name: state[name].detach().cpu().contiguous() for name in first.values()}, Path(path))


def write_tensors(tensors: Mapping[str, Tensor], path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write contiguous CPU tensors as safetensors, whole or not at all.

    Args:
        tensors: no two of which share memory.
        path: of the file.
        about: what the file says of itself under ``seeking``, as JSON.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        with whole(path) as beside:
            save_file(dict(tensors), beside, {"format": "pt", "seeking": json.dumps(about or {})})
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: cannot be written ({error})") from error


def read_about(path: Path) -> dict[str, Any]:
    """What a file of weights says of itself; nothing if it is missing or says nothing.

    Raises:
        SeekingError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        open_file(path).close()
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("seeking", "{}"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise SeekingError(f"{path}: damaged ({error})") from error
    return about if isinstance(about, dict) else {}
