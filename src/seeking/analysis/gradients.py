"""Do the two models want to move the shared weights in the same direction?"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seeking.analysis.loss import differentiable_loss, sample_of, trained_parameters
from seeking.conditions.agreement import cosine
from seeking.copies import random_state_preserved
from seeking.training.modes import set_modes, training_modes
from seeking.training.objective import LossFn
from seeking.training.samples import sample_count
from seeking.weights_map import WeightsMap

Gradients = dict[str, Tensor]
"""By parameter name."""


@dataclass(frozen=True)
class Agreement:
    """Cosines of the base's gradient and the motivated model's on the shared weights, in [-1, 1].

    Attributes:
        sample: of the two mean gradients over all batches.
        batches: of the two gradients on each batch.
    """

    sample: float
    batches: tuple[float, ...]


def agreement(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, batches: Iterable[Any], loss_fn: LossFn
) -> Agreement:
    """Compare the gradients of both models, in training mode, on the same batches; the models are left as they are.

    Args:
        base: the base.
        motivated: the motivated model, with the base's weights in it (inside ``pair.motivated()``).
        weights_map: position of the base in the motivated model.
        batches: batches; each is used as a whole.
        loss_fn: the mean loss of a model on a batch.

    Raises:
        SeekingError: there is no batch, no trained parameter, or no gradient.
    """
    totals: tuple[Gradients, Gradients] = {}, {}
    cosines = []
    for batch in sample_of(batches):
        pair = gradients(base, batch, loss_fn), weights_map.extract(gradients(motivated, batch, loss_fn))
        cosines.append(cosine(*pair))
        for total, part in zip(totals, pair, strict=True):
            for name, gradient in part.items():
                weighted = gradient * sample_count(batch)
                total[name] = total[name] + weighted if name in total else weighted
    return Agreement(cosine(*totals), tuple(cosines))


def gradients(model: nn.Module, batch: Any, loss_fn: LossFn) -> Gradients:
    """The gradient of the loss on a batch, in training mode; the model's own ``grad`` fields stay as they are."""
    names, parameters = zip(*trained_parameters(model).items(), strict=True)
    with _training(model):
        loss = differentiable_loss(model, batch, loss_fn)
        values = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: gradient for name, gradient in zip(names, values, strict=True) if gradient is not None}


@contextlib.contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in training mode, with gradients; its modes, buffers and the random state are kept."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    set_modes(training_modes(model))
    try:
        with torch.enable_grad(), random_state_preserved():
            yield
    finally:
        set_modes(modes)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
