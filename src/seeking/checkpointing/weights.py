"""Weights of one model in one file."""

import copy
import json
import textwrap
import warnings
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from seeking.checkpointing.foreign_weights import EXTRA_STATE, explained, read_tensors, unwrapped
from seeking.errors import DamagedError, RunError, RunWarning, SeekingError
from seeking.files import atomic_write, is_file, reading, reason, status
from seeking.weights_map import identity


def load_weights(model: nn.Module, path: str | Path, *, replaceable: Collection[str] = ()) -> list[str]:
    """Load weights into a model: all of them, or on an error none.

    Args:
        model: the model that they are of.
        path: a ``.safetensors`` file, or one of ``torch.save`` that holds a ``state_dict``, alone or under one of
            ``CHECKPOINT_KEYS``; or a folder of Hugging Face or its index, if they are split into several files. Nothing
            in them is executed. What wraps all names (DDP, averages, ``torch.compile``) is left out.
        replaceable: names of tensors that may have another shape in the file, such as a head for other classes; the
            model keeps its own.

    Returns:
        The names of those that have.

    Raises:
        DamagedError: the file is in a run folder whose manifest lists another one.
        SeekingError: the file cannot be read, or its weights are of another model or dtype.
    """
    path, own = Path(path), model.state_dict()
    expected = f"weights of this {type(model).__name__}"
    with explained(path, expected):
        content, key = read_tensors(path)
    with explained(path, expected, key):
        content = unwrapped(content, own)
        _check_names(content, own)
        content = _with_tied(model, content)
        kept = [name for name in replaceable if name in content and content[name].shape != own[name].shape]
        content |= {name: own[name] for name in kept}
        _check_dtypes(model, content, path)
        _load_all_or_nothing(model, content)
    return kept


def _load_all_or_nothing(model: nn.Module, content: Mapping[str, Any]) -> None:
    """Load a state; on an error the model is left as it was.

    Whether other names or shapes than the model's own fit is only known by loading them, since modules may take some
    (by hooks, or of older versions of theirs), and PyTorch copies what fits before it tells what does not.
    """
    own = model.state_dict()
    sizes = {name: getattr(value, "shape", None) for name, value in own.items()}
    fits = sizes == {name: getattr(value, "shape", None) for name, value in content.items()}
    before = own if fits else copy.deepcopy(own)  # Large models are not copied without need.
    try:
        model.load_state_dict(content)
    except BaseException:
        model.load_state_dict(before)
        raise


def shapes_of_weights(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a file of weights, by name.

    Raises:
        DamagedError: as ``load_weights``.
        SeekingError: the file cannot be read.
    """
    with explained(Path(path), "weights of a model"):
        content = unwrapped(read_tensors(Path(path))[0])
        return {name: tuple(value.shape) for name, value in content.items() if isinstance(value, Tensor)}


def _check_names(content: Mapping[str, Any], own: Collection[str]) -> None:
    """Refuse names of which none is a model's.

    Raises:
        ValueError: none is; perhaps the content has all of the model's, with more before them.
    """
    if not own or content.keys() & own:
        return
    first = min(own)
    prefixes = [name.removesuffix(first) for name in content if name.endswith(f".{first}")]
    prefix = next((prefix for prefix in prefixes if content.keys() >= {prefix + name for name in own}), "")
    if prefix:
        raise ValueError(f"its names begin with {prefix!r}, as of a part of another model; save that part alone")
    names = textwrap.shorten(", ".join(content), 120, placeholder=" …") or "no tensor"
    raise ValueError(f"it holds nothing of the model's, such as {first}, but {names}; give a state_dict of this model")


def load_matching_weights(model: nn.Module, path: Path) -> None:
    """Load those weights of a run that have the model's shapes, such as all but a head for other classes.

    A warning names the others.

    Raises:
        DamagedError, SeekingError: as ``load_weights``.
    """
    own = [name for name, value in model.state_dict().items() if isinstance(value, Tensor)]
    kept = load_weights(model, path, replaceable=own)
    if kept:
        warnings.warn(f"{path}: of other shapes, so not loaded: {', '.join(kept)}", RunWarning, stacklevel=2)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights as safetensors, atomically; tied tensors once.

    Raises:
        RunError: the file cannot be written, or a module has an extra state that is not JSON.
    """
    content = model.state_dict()
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    extra = {name: value for name, value in content.items() if not isinstance(value, Tensor)}
    for name, value in extra.items():
        if not _is_json(value):
            raise RunError(
                f"{path}: {name}: a {type(value).__name__} from get_extra_state() cannot be written; give a tensor, or "
                "values that JSON has"
            )
    first: dict[Hashable, str] = {}
    for name, tensor in state.items():
        first.setdefault(identity(tensor) if tensor.numel() else name, name)
    metadata = {EXTRA_STATE: extra} if extra else None
    write_tensors({name: state[name].detach().cpu().contiguous() for name in first.values()}, Path(path), metadata)


def _check_dtypes(model: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Refuse weights of another dtype than the model's, which would be converted without a word."""
    for name, own in model.state_dict().items():
        given = state.get(name)
        if isinstance(own, Tensor) and isinstance(given, Tensor) and given.dtype != own.dtype:
            raise SeekingError(
                f"{path}: {name} is {given.dtype} in the file, {own.dtype} in this {type(model).__name__}; convert one "
                "of them to the dtype of the other"
            )


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _with_tied(model: nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """What ``save_weights`` wrote, with tied tensors under each of the model's names for them.

    Raises:
        ValueError: the state has two different tensors for one.
    """
    own = {name: identity(value) for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    given: dict[Hashable, str] = {}
    for name, key in own.items():
        first = given.setdefault(key, name) if name in state else name
        if first != name and not _are_equal(state[first], state[name]):
            raise ValueError(
                f"{first} and {name} are one tensor in the model, and two that differ in the file; make a model that "
                "does not tie them (a language model with tie_word_embeddings=False), or leave one out of the file"
            )
    tied = {key: state[name] for key, name in given.items()}
    return {**state, **{name: tied[key] for name, key in own.items() if name not in state and key in tied}}


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two tensors are; NaN is equal to NaN."""
    if one is other or not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return True
    return one.shape == other.shape and torch.allclose(one, other.to(one.dtype), rtol=0, atol=0, equal_nan=True)


def write_tensors(
    tensors: Mapping[str, Tensor],
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    ready: Callable[[Path], object] | None = None,
) -> None:
    """Write contiguous CPU tensors as safetensors, atomically.

    Args:
        tensors: no two of which share memory.
        path: of the file.
        metadata: JSON-serializable; the file has it under ``seeking``.
        ready: called with the path of the complete file before it gets its name.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        with atomic_write(path, ready) as temporary:
            save_file(dict(tensors), temporary, {"format": "pt", "seeking": json.dumps(metadata or {})})
            _sort_metadata(temporary)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: cannot be written ({reason(error)})") from error


def _sort_metadata(path: Path) -> None:
    """Bring the metadata of a file of safetensors in order; it is written in a random one, so that equal weights would
    have unequal checksums."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata that ``write_tensors`` was given; empty if the file is missing or has none.

    Raises:
        DamagedError: the file is damaged.
        SeekingError: it cannot be read, which may pass.
    """
    try:
        with reading(path):
            if status(path) is None:
                return {}
            if not is_file(path):
                raise DamagedError(f"{path}: not a file")
            path.open("rb").close()
            with safe_open(path, "pt") as file:
                metadata = json.loads((file.metadata() or {}).get("seeking", "{}"))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: damaged ({error})") from error
    return metadata if isinstance(metadata, dict) else {}
