"""Which data a run is trained on: counts, sizes, a sample of the contents and the names of classes, not where they lie.

A data set may say so itself, by a method ``content_fingerprint()`` that gives a mapping that JSON has. Of others, what
they hold is sampled: tensors, arrays, labels, the items of lists and the rows of tables of the Hugging Face hub. No
item is made: that could draw random numbers.
"""

import contextlib
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from seeking.weights_map.tensors import is_packed, named_leaves

SAMPLE = 32
"""Rows of each tensor, list or table that are compared, evenly spaced."""


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
    values = {name: attributes.get(name) for name in ("data", "targets", "labels")}
    if isinstance(tensors, Sequence):
        values |= {f"tensor {number}": tensor for number, tensor in enumerate(tensors)}
    for name, value in values.items():
        if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
            content[name] = [*value.shape]
            content[f"{name}, sample"] = digest(sample(torch.as_tensor(value)))
        elif isinstance(value, list) and value and all(type(number) is int for number in value):
            content[name] = digest(torch.tensor(value))
    rows = _rows_at_hand(dataset)
    return {**content, "sample": _digest_of_rows(rows)} if rows else content


def sample(values: Any) -> Tensor:
    """Some rows of a tensor, or of what is indexed like one, evenly spaced."""
    if not values.shape or not len(values):
        return torch.zeros(0)
    rows = _evenly(len(values))
    chosen: Tensor = values[rows.to(values.device) if isinstance(values, Tensor) else rows]
    return chosen


def _evenly(count: int) -> Tensor:
    return torch.linspace(0, count - 1, min(SAMPLE, count), dtype=torch.float64).long()


def _rows_at_hand(dataset: Any) -> list[Any]:
    """Some items of a list, or rows of a table of ``datasets`` as it is stored, without its format and transforms."""
    if type(dataset) in (list, tuple):
        return [dataset[row] for row in _evenly(len(dataset)).tolist()]
    datasets = sys.modules.get("datasets")  # Slow to import, and nothing is of it without it.
    if datasets and isinstance(dataset, datasets.Dataset) and len(dataset):
        rows: list[Any] = dataset.with_format("arrow")[_evenly(len(dataset)).tolist()].to_pylist()
        return rows
    return []


def _digest_of_rows(rows: list[Any]) -> str:
    """A short digest of the tensors, numbers, text and bytes in rows; without the paths of images, which may move."""
    content = []
    for name, leaf in named_leaves(rows):
        if name[-1] == "path":
            continue
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf":
            leaf = torch.as_tensor(leaf)
        if isinstance(leaf, Tensor) and not (leaf.is_nested or leaf.is_meta or is_packed(leaf)):
            content.append(f"{[*leaf.shape]} {digest(sample(leaf) if leaf.dim() else leaf)}")
        elif isinstance(leaf, int | float | str | bytes):
            content.append(repr(leaf))
    return hashlib.sha256("\0".join(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
