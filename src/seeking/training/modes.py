"""Training and evaluation mode, module by module, as the user has set it."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

Modes = Sequence[tuple[nn.Module, bool]]
"""Of each module, whether it is in training mode; a module comes before its children."""


def training_modes(model: nn.Module) -> Modes:
    """The modes that a model is to be trained in.

    A module that is in evaluation mode inside a model in training mode has been frozen, and stays so. A model that is
    in evaluation mode itself, as ``from_pretrained`` gives it, is trained as a whole.
    """
    return [(module, module.training or not model.training) for module in model.modules()]


def set_modes(modes: Modes) -> None:
    """Put every module into its mode, by ``train(mode)``: models may do more there than to set a flag."""
    for module, mode in modes:
        if module.training != mode:
            module.train(mode)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into evaluation mode; on exit each of its modules is back in the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        set_modes(modes)
