"""Extra blocks that start as copies of the base's block before them."""

import warnings

import torch
from torch import nn

from seeking.errors import SeekingError
from seeking.matching import MatchWarning
from seeking.matching.align import stages
from seeking.verification.extra import extra_modules
from seeking.weights_map import WeightsMap, identity, tensors


def sources(motivated: nn.Module, weights_map: WeightsMap) -> dict[str, str]:
    """By the name of each extra block, the name of the base's last block of its class before it in its stage.

    Raises:
        SeekingError: the models differ in more than depth, or something extra has no such block before it.
    """
    partial = next((entry.target for entry in weights_map.entries.values() if not entry.whole), None)
    if partial:
        raise SeekingError(
            f"extra copied is for models that differ in depth alone, but {partial} holds more than the base's part; "
            "use own or neutral"
        )
    extra = dict.fromkeys(extra_modules(motivated, weights_map), "")
    if not extra:
        raise SeekingError("extra copied: the motivated model has no extra block; use own")
    for name, parent in motivated.named_modules():
        for blocks in stages(parent).values():
            last: dict[type[nn.Module], str] = {}
            for block, module in ((f"{name}.{leaf}".removeprefix("."), module) for leaf, module in blocks.items()):
                if block in extra:
                    extra[block] = last.get(type(module), "")
                else:
                    last[type(module)] = block
    alone = next((name for name, source in extra.items() if not source), None)
    if alone:
        raise SeekingError(
            f"extra copied: before {alone} there is no block of the base of its class in its stage; use own or neutral"
        )
    return extra


@torch.no_grad()
def copy_blocks(motivated: nn.Module, weights_map: WeightsMap) -> list[str]:
    """Make each extra block a copy of the base's last block before it in its stage.

    Args:
        motivated: the model; holds the base's weights.
        weights_map: of the base in it.

    Returns:
        Names of the tensors of extra blocks that stay as they are, since the other block's have another shape.

    Raises:
        SeekingError: as ``sources``; or nothing of a block can be copied. The model has not been changed.
    """
    kept: list[str] = []
    pairs = []
    everything = tensors(motivated)
    mapped = {identity(everything[entry.target]) for entry in weights_map.entries.values()}
    for block, source in sources(motivated, weights_map).items():
        given, own = tensors(motivated.get_submodule(source)), tensors(motivated.get_submodule(block))
        fitting = [name for name, tensor in own.items() if name in given and given[name].shape == tensor.shape]
        if not fitting:
            raise SeekingError(f"extra copied: {source} has no tensor of the shape of {block}'s; use own or neutral")
        kept += [f"{block}.{name}" for name in own if name not in fitting]
        # What is tied to the base's is the base's.
        pairs += [(own[name], given[name]) for name in fitting if identity(own[name]) not in mapped]
    for target, value in pairs:
        target.copy_(value)
    return kept


def warn_of_kept(kept: list[str]) -> None:
    """Warn that these tensors could not be copied."""
    if kept:
        warnings.warn(
            f"extra copied: {', '.join(kept[:4])}{' and more' if len(kept) > 4 else ''} keep their own "
            "initialization, since the block before has other shapes",
            MatchWarning,
            stacklevel=3,
        )
