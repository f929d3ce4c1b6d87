"""Keep the training and evaluation modes of a model's modules as the user has set them."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

Modes = Sequence[tuple[nn.Module, bool]]
"""Pairs of a module and whether it is in training mode; a module comes before its children."""


def training_modes(model: nn.Module) -> Modes:
    """The modes of a model's modules during training.

    Modules in evaluation mode inside a model in training mode are frozen, and stay in evaluation mode. If the model
    itself is in evaluation mode, such as after ``from_pretrained``, all its modules are trained.
    """
    return [(module, module.training or not model.training) for module in model.modules()]


def set_modes(modes: Modes) -> None:
    """Set the mode of every module with ``train(mode)``, which models may override."""
    for module, mode in modes:
        if module.training != mode:
            module.train(mode)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into evaluation mode; on exit the mode of each module is restored."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        set_modes(modes)
