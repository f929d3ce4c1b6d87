"""Gradients of one model by name, and of both models on what they share."""

import torch
from torch import Tensor, nn

from seeking.pair import MAX_BLOCKS
from seeking.weights_map import WeightsMap


def gradients_by_name(model: nn.Module) -> dict[str, Tensor]:
    """The gradients of a model by parameter name, of those parameters that have one; not copied."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@torch.no_grad()
def add_gradients(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, base_weight: float = 1.0, own_weight: float = 1.0
) -> None:
    """Put the weighted sum of both models' gradients where the motivated model has its own.

    Args:
        base: a model with gradients.
        motivated: the larger model with gradients.
        weights_map: of the base in it.
        base_weight: weight of the base's gradients.
        own_weight: weight of the motivated model's gradients.
    """
    targets = dict(motivated.named_parameters(remove_duplicate=False))
    if own_weight != 1:
        for target in motivated.parameters():
            if target.grad is not None:
                target.grad.mul_(own_weight)
    for name, parameter in base.named_parameters():
        if parameter.grad is None:
            continue
        entry = weights_map.entries[name]
        target = targets[entry.target]
        if target.grad is None:
            target.grad = torch.zeros_like(target)
        if entry.whole:
            target.grad.add_(parameter.grad, alpha=base_weight)
        elif entry.block_count() <= MAX_BLOCKS:
            for here, there in entry.blocks():
                target.grad[there].add_(parameter.grad[here], alpha=base_weight)
        else:
            target.grad[entry.mesh(target.device)] += base_weight * parameter.grad
