"""Gradients of one model by name, and of both models on what they share."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from seeking.distributed.sharding import is_sharded
from seeking.internals import foreach_norm
from seeking.shared_tensors import MAX_BLOCKS
from seeking.weights_map import WeightsMap


def gradients_by_name(model: nn.Module) -> dict[str, Tensor]:
    """The gradients of a model by parameter name, of those parameters that have one; not copied unless sparse."""
    return {name: dense(p.grad) for name, p in model.named_parameters() if p.grad is not None}


def dense(gradient: Tensor) -> Tensor:
    """A gradient with its zeros, which embeddings with ``sparse=True`` leave out."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def make_dense(parameters: Iterable[nn.Parameter]) -> None:
    """Give sparse gradients their zeros: most optimizers take no others."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = dense(parameter.grad)


@torch.no_grad()
def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The norm of all gradients as one vector, of shape ``[]``; 0 if there are none.

    These are the operations of ``get_total_norm``, which spends more time on sorting the tensors by device and dtype
    than a small model's norms take.
    """
    values = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    if not values or is_sharded(values[0]):
        return get_total_norm(values)
    try:
        norm: Tensor = torch.linalg.vector_norm(torch.stack(foreach_norm(values)))
    except RuntimeError:  # They are on several devices, or some of them are sharded.
        return get_total_norm(values)
    return norm


@torch.no_grad()
def add_gradients(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, base_weight: float = 1.0, own_weight: float = 1.0
) -> None:
    """Put the weighted sum of both models' gradients where the motivated model has its own.

    Args:
        base: a model with gradients.
        motivated: the larger model with gradients.
        weights_map: of the base in it; base tensors that each model keeps for itself are left out.
        base_weight: weight of the base's gradients.
        own_weight: weight of the motivated model's gradients.
    """
    entries = weights_map.shared.entries
    targets = dict(motivated.named_parameters(remove_duplicate=False))
    make_dense([*base.parameters(), *motivated.parameters()])
    if own_weight != 1:
        for target in motivated.parameters():
            if target.grad is not None:
                target.grad.mul_(own_weight)
    for name, parameter in base.named_parameters():
        entry = entries.get(name)
        if parameter.grad is None or entry is None:
            continue
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
