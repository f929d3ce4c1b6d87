"""Tensors by name in files of weights, whoever has written them."""

import argparse
import contextlib
import json
import re
import textwrap
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from seeking.checkpointing import snapshot
from seeking.checkpointing.manifest import check_file
from seeking.errors import SeekingError
from seeking.files import check_regular, read_json, reason

EXTRA_STATE = "extra_state"
"""Where the file's metadata hold what modules gave by ``get_extra_state``."""

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What DataParallel, DDP and averages, ``torch.compile``, FSDP and checkpointed activations put before all names of a
model."""

AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "params_ema", "ema")
"""Where checkpoints of training loops hold averages of weights."""

CHECKPOINT_KEYS = (*AVERAGES, "state_dict", "model_state_dict", "model_state", "model", "net", "module", "params")
"""Where they hold weights: averages first, as in timm."""

MAX_KEYS = 3
"""How deep one of these is looked for in another; what a hostile file nests could take for ever."""

IN_FOLDERS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json")
"""What folders of Hugging Face and accelerate hold: the weights, or an index of the files that they are split into."""

INDEX = ".index.json"
"""How the names of indices end."""

MAX_INDEX_BYTES = 1 << 26

_PART = re.compile(r"-\d{5}-of-\d{5}\.")


def read_tensors(path: Path) -> tuple[dict[str, Any], str]:
    """Tensors by name, and extra states of modules; and under which of ``CHECKPOINT_KEYS`` they were, if any.

    Args:
        path: a file, or an index of the files that the tensors are split into, or a folder with one of these.
    """
    if path.suffix == ".distcp" or path.name == ".metadata" or any(path.glob("*.distcp")):
        raise SeekingError(
            f"{path}: of torch.distributed.checkpoint, which splits tensors into several files; write them to one with "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save, and give that one"
        )
    path = next((path / name for name in IN_FOLDERS if (path / name).is_file()), path)
    if path.name.endswith(INDEX):
        return _read_split(path), ""
    content = _read_file(path)
    found = _found(content)
    if found is None:
        names = ", ".join(map(str, content)) if isinstance(content, Mapping) else ""
        of = f" of {textwrap.shorten(names, 80, placeholder=' …')}" if names else ""
        raise SeekingError(
            f"{path}: not a file of weights: it holds a {type(content).__name__}{of}, not tensors by name; give a "
            ".safetensors file, or a state_dict saved with torch.save"
        )
    return found


def _found(content: Any, keys: tuple[str, ...] = ()) -> tuple[dict[str, Any], str] | None:
    """Tensors by name in what a training loop has saved, and under which keys they are; None if there are none."""
    if not isinstance(content, Mapping) or len(keys) > MAX_KEYS:
        return None
    for key in CHECKPOINT_KEYS:
        if found := _found(content.get(key), (*keys, key)):
            return found
    if not all(isinstance(name, str) for name in content):
        return None
    of_a_model = any(isinstance(value, Tensor) or name.endswith(EXTRA_STATE) for name, value in content.items())
    return (dict(content), ".".join(keys)) if of_a_model or not (content or keys) else None


def _read_split(index: Path) -> dict[str, Any]:
    """The tensors that an index names, from the files beside it.

    Raises:
        SeekingError: it is no index, names files elsewhere, or tensors that are not where it says.
    """
    places: Any = read_json(index, MAX_INDEX_BYTES).get("weight_map")
    files: set[Any] = set(places.values()) if isinstance(places, dict) else {None}
    if not all(isinstance(file, str) and Path(file).name == file for file in files):
        raise SeekingError(f"{index}: not an index of weights, with a weight_map of tensors to files beside it")
    parts = {}
    for file in sorted(files):
        with explained(index.with_name(file), "weights of a model"):
            parts[file] = _read_file(index.with_name(file))
    for name, file in places.items():
        if name not in parts[file]:
            raise SeekingError(f"{index}: {name} is not in {file}, as it says; get or save the files again")
    return {name: parts[file][name] for name, file in places.items()}


def _read_file(path: Path) -> Any:
    """What a file holds, if it is not damaged and not a checkpoint's."""
    check_file(path)  # Of a run it tells what is lost, too.
    check_regular(path)
    if not path.stat().st_size:
        raise SeekingError(f"{path}: not a file of weights: it is empty, as if writing it had failed; give another one")
    target = path.resolve()
    if path.is_symlink():
        check_file(target)  # It may be listed where it lies.
    if snapshot.is_part(target):
        raise SeekingError(
            f"{path}: a file of a checkpoint, which holds two models, their optimizers and more; give weights in the "
            "folder of the run, such as motivated.last.safetensors"
        )
    if not _is_safetensors(path):
        return _unpickled(path)
    with safe_open(path, "pt") as file:
        metadata = json.loads((file.metadata() or {}).get("seeking", "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {**tensors, **metadata.get(EXTRA_STATE, {})}


def _unpickled(path: Path) -> Any:
    """What ``torch.save`` has written, if that is values, lists and mappings of them, and tensors.

    Options as timm saves them, in a namespace, are values as well. Nothing in the file is executed.
    """
    allowed = {argparse.Namespace}.difference(torch.serialization.get_safe_globals())  # A user's stays allowed.
    with (
        path.open("rb") as file,  # By a path, PyTorch goes by the name.
        warnings.catch_warnings(action="ignore"),  # Of formats.
        torch.serialization.safe_globals([*allowed]),
    ):
        return torch.load(file, map_location="cpu", weights_only=True)


def unwrapped(content: Mapping[str, Any], own: Collection[str] = ()) -> dict[str, Any]:
    """Tensors by the names that they have in a model without what wrapped it: DDP, averages, ``torch.compile``.

    Args:
        content: as it was read.
        own: names of the model that they are for, which may be wrapped itself.
    """
    for prefix in WRAPPERS:
        inner = {name: value for name, value in content.items() if name != "n_averaged"}
        if inner and all(name.startswith(prefix) for name in inner) and not inner.keys() & own:
            return unwrapped({name.removeprefix(prefix): value for name, value in inner.items()}, own)
    return dict(content)


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins like safetensors: the size of a header, then JSON.

    One of that name is, too, however it is damaged, unless it begins like a file of ``torch.save``: a zip or a pickle.
    """
    with path.open("rb") as file:
        begin = file.read(9)
    return begin[8:] == b"{" or (path.suffix == ".safetensors" and not begin.startswith((b"PK", b"\x80")))


@contextlib.contextmanager
def explained(path: Path, expected: str, key: str = "") -> Iterator[None]:
    """Let errors name the file, and under which key of it the weights were."""
    try:
        yield
    except SeekingError:
        raise
    except OSError as error:
        raise SeekingError(f"{path}: cannot be read ({reason(error)})") from error
    except (SafetensorError, RuntimeError, AttributeError, TypeError, ValueError) as error:
        place = f"{key} in {path}" if key else path
        problem = textwrap.shorten(str(error), 300, placeholder=" …")
        hint = "; it is taken before other weights in the file, so save those alone" if key.startswith(AVERAGES) else ""
        if _PART.search(path.name):
            hint = "; it is one of several files that the weights are split into; give their folder"
        raise SeekingError(f"{place}: not {expected}: {problem}{hint}") from error
    except Exception as error:  # Unpickling raises all kinds of exceptions, and torch's advice is to execute the file.
        unknown = re.search(r"GLOBAL (\S+)", str(error))
        problem = f"it holds a {unknown[1]}, and nothing in it is executed" if unknown else "it is of another format"
        raise SeekingError(
            f"{path}: not a file of weights: {problem}; give a .safetensors file, or a state_dict saved with torch.save"
        ) from error
