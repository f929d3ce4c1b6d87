"""The losses that an analysis measures."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from seeking.errors import SeekingError
from seeking.training.custom_loss import loss_in
from seeking.training.objective import LossFn


def sample_of(batches: Iterable[Any]) -> list[Any]:
    """The batches that an analysis measures on.

    Raises:
        SeekingError: there are none.
    """
    sample = [*batches]
    if not sample:
        raise SeekingError("there is no batch to measure on; give at least one")
    return sample


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require gradients, by name.

    Raises:
        SeekingError: none does.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise SeekingError(f"no parameter of the {type(model).__name__} requires gradients, so it has none to measure")
    return trained


def differentiable_loss(model: nn.Module, batch: Any, loss_fn: LossFn) -> Tensor:
    """The mean loss of a model on a batch.

    Raises:
        SeekingError: the ``loss_fn`` returns none, or one that does not depend on trained parameters.
    """
    loss = loss_in(loss_fn(model, batch), "loss_fn")
    if not loss.requires_grad:
        raise SeekingError(
            f"the loss that the loss_fn returns for the {type(model).__name__} has no gradient; compute it without "
            "detach(), item() and no_grad()"
        )
    return loss
