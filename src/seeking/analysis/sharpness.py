"""How sharp is a solution? The eigenvalue of the Hessian of largest magnitude."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seeking.analysis.loss import differentiable_loss, sample_of, trained_parameters
from seeking.gradients import total_norm
from seeking.training.modes import evaluating
from seeking.training.objective import LossFn
from seeking.training.samples import sample_count


@dataclass(frozen=True)
class Sharpness:
    """The eigenvalue of the Hessian of largest magnitude.

    At a minimum, this is the largest one; elsewhere, it may be negative.

    Attributes:
        eigenvalue: the eigenvalue, as far as the iterations have come.
        iterations: number of power iterations.
        converged: whether the last iteration changed it by less than the tolerance.
    """

    eigenvalue: float
    iterations: int
    converged: bool


def sharpness(
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    *,
    iterations: int = 20,
    tolerance: float = 0.01,
    seed: int = 0,
) -> Sharpness:
    """Power iteration on the Hessian of the mean loss with respect to all trained parameters, in evaluation mode.

    Args:
        model: the model; left as it is.
        batches: the sample.
        loss_fn: the mean loss of a model on a batch.
        iterations: greatest number of Hessian-vector products.
        tolerance: relative change of the eigenvalue at which to stop.
        seed: seed of the first vector.

    Raises:
        SeekingError: there is no batch, no trained parameter, or no gradient.
    """
    sample, parameters = sample_of(batches), [*trained_parameters(model).values()]
    generator = torch.Generator().manual_seed(seed)
    vector = [torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    eigenvalue = math.nan
    with evaluating(model), torch.enable_grad():
        for number in range(1, iterations + 1):
            length = float(total_norm(vector))
            if not 0 < length < math.inf:
                return Sharpness(0.0 if length == 0 else math.nan, number - 1, converged=length == 0)
            vector = [each / length for each in vector]
            product = _hessian_product(model, parameters, vector, sample, loss_fn)
            previous, eigenvalue = eigenvalue, _dot(vector, product)
            if abs(eigenvalue - previous) <= tolerance * abs(eigenvalue):
                return Sharpness(eigenvalue, number, converged=True)
            vector = product
    return Sharpness(eigenvalue, iterations, converged=False)


def _hessian_product(
    model: nn.Module, parameters: list[nn.Parameter], vector: list[Tensor], batches: Sequence[Any], loss_fn: LossFn
) -> list[Tensor]:
    """The Hessian of the mean loss over all samples, times a vector."""
    total = [torch.zeros_like(each) for each in vector]
    samples = sum(map(sample_count, batches))
    for batch in batches:
        with sdpa_kernel(SDPBackend.MATH):  # The other kernels have no second derivative.
            loss = differentiable_loss(model, batch, loss_fn) * (sample_count(batch) / samples)
            first = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
            inner = torch.stack([(x * y).sum() for x, y in zip(first, vector, strict=True)]).sum()
            if not inner.requires_grad:  # The loss is linear.
                continue
            second = torch.autograd.grad(inner, parameters, materialize_grads=True)
        total = [x + y for x, y in zip(total, second, strict=True)]
    return total


def _dot(first: list[Tensor], other: list[Tensor]) -> float:
    return float(torch.stack([(a * b).sum() for a, b in zip(first, other, strict=True)]).sum())
