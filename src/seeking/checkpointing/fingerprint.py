"""Which data a run is trained on: counts, sizes, a sample of the contents and the names of classes, not where they lie.

A data set may say so itself, by a method ``content_fingerprint()`` that gives a mapping that JSON has. Of others,
tensors and arrays are sampled. No item is loaded: that could draw random numbers.
"""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

SAMPLE = 32
"""Rows of each tensor that are compared, evenly spaced."""


def fingerprint(loaders: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprints of loaders' data sets, by the same names; empty where nothing is known of a data set."""
    return {name: of_dataset(getattr(loader, "dataset", loader)) for name, loader in loaders.items()}


def of_dataset(dataset: Any) -> dict[str, Any]:
    """The fingerprint of a data set, as JSON has it."""
    own = getattr(dataset, "content_fingerprint", None)
    if callable(own):
        return dict(own())
    if isinstance(dataset, Subset):
        return {**of_dataset(dataset.dataset), "indices": digest(torch.as_tensor(list(dataset.indices)))}
    if isinstance(dataset, ConcatDataset):
        return {str(number): of_dataset(part) for number, part in enumerate(dataset.datasets)}
    content: dict[str, Any] = {}
    if hasattr(type(dataset), "__len__"):
        with contextlib.suppress(TypeError, NotImplementedError):  # An iterable one may not know its length.
            content["count"] = len(dataset)
    attributes = getattr(dataset, "__dict__", {})
    if _are_names(attributes.get("classes")):
        content["classes"] = classes_digest(attributes["classes"])
    tensors = attributes.get("tensors")
    values = {name: attributes.get(name) for name in ("data", "targets")}
    if isinstance(tensors, Sequence):
        values |= {f"tensor {number}": tensor for number, tensor in enumerate(tensors)}
    for name, value in values.items():
        if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
            content[name] = [*value.shape]
            content[f"{name}, sample"] = digest(sample(torch.as_tensor(value)))
    return content


def sample(values: Any) -> Tensor:
    """Some rows of a tensor, or of what is indexed like one, evenly spaced."""
    if not values.shape or not len(values):
        return torch.zeros(0)
    rows = torch.linspace(0, len(values) - 1, min(SAMPLE, len(values)), dtype=torch.float64).long()
    chosen: Tensor = values[rows.to(values.device) if isinstance(values, Tensor) else rows]
    return chosen


def digest(tensor: Tensor) -> str:
    """A short digest of a tensor's values."""
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.detach().cpu().contiguous().flatten()
    content = flat.view(torch.uint8) if flat.numel() else flat
    return hashlib.sha256(bytes(content.numpy())).hexdigest()[:16]


def classes_digest(names: Sequence[str]) -> str:
    """The number of classes and a short digest of their names, in order."""
    text = "\0".join(names).encode("utf-8", "surrogatepass")
    return f"{len(names)} ({hashlib.sha256(text).hexdigest()[:16]})"


@dataclass(frozen=True)
class Difference:
    """A part of the data that a run has otherwise now.

    Attributes:
        loader: name of the loader, such as ``training data``.
        part: what differs, such as ``count``.
        saved: its value in the run.
        current: its value now.
    """

    loader: str
    part: str
    saved: Any
    current: Any

    def __str__(self) -> str:
        return f"{self.loader}, {self.part}: {self.saved} in the run, {self.current} now"


def differences(saved: Any, current: Mapping[str, Any]) -> list[Difference]:
    """What differs between two results of ``fingerprint``; of what only one of them knows, nothing."""
    differing = []
    for name, new in current.items():
        old = saved.get(name) if isinstance(saved, dict) else None
        if isinstance(old, dict):
            differing += [
                Difference(name, key, old[key], new[key]) for key in new if key in old and old[key] != new[key]
            ]
    return differing


def decoded_otherwise(differing: Sequence[Difference], current: Mapping[str, Any]) -> bool:
    """Whether the differences may come from another decoder: nothing differs but the pixels of images."""
    return bool(differing) and all(each.part == "sample" and "size" in current[each.loader] for each in differing)


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
