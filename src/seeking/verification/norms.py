"""Norms that are wider in the motivated model, narrowed to the base's channels."""

from typing import Any

import torch
from torch import Tensor, nn

from seeking.internals import StatisticsNorm
from seeking.verification.recording import Hook, Records
from seeking.weights_map import WeightsMap


def narrowed_norms(base: nn.Module, weights_map: WeightsMap, records: Records) -> dict[str, Hook]:
    """Hooks for the motivated model's norms that are wider than the base's, by name.

    Batch norms need none: they treat each channel by itself.

    Args:
        base: the smaller model.
        weights_map: of the base in the motivated model.
        records: the outputs of the base's layers.
    """
    shapes = {name: output.shape for name, output in records if isinstance(output, Tensor)}
    narrowed = {}
    for name, entry in weights_map.entries.items():
        owner, _, leaf = name.rpartition(".")
        module = base.get_submodule(owner)
        torch_norm = isinstance(module, (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm))
        is_norm = torch_norm or ("Norm" in type(module).__name__ and not isinstance(module, StatisticsNorm))
        if leaf == "weight" and len(entry.shape) == 1 and not entry.whole and is_norm and owner in shapes:
            counterpart = entry.target.rpartition(".")[0]
            narrowed[counterpart] = _narrowed(module, shapes[owner], entry.index[0].tensor())
    return narrowed


def _narrowed(norm: nn.Module, shape: torch.Size, index: Tensor) -> Hook:
    """A hook that lets a norm take its statistics over the base's channels alone, and put out zero elsewhere.

    Args:
        norm: of the base; it computes, with the weights that the motivated model's norm has for these channels.
        shape: of the base's output.
        index: the base's channels, int64.
    """

    def normalize(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        x: Tensor = inputs[0]
        wider = [dim for dim in range(x.ndim) if len(shape) == x.ndim and x.shape[dim] != shape[dim]]
        if len(wider) != 1 or shape[wider[0]] != len(index):
            return None
        channels = index.to(x.device)
        own = dict(norm.named_parameters(recurse=False)) | dict(norm.named_buffers(recurse=False))
        held = {
            leaf: getattr(module, leaf).index_select(0, channels)
            for leaf, tensor in own.items()
            if tensor.shape == index.shape
        }
        normalized = torch.func.functional_call(norm, held, (x.index_select(wider[0], channels),))
        return torch.zeros_like(x).index_copy_(wider[0], channels, normalized)

    return normalize
