"""What the file of a family of models gives."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seeking.choices import Task


@dataclass(frozen=True)
class Family:
    """Models of the library's own, by a pattern of their names.

    Attributes:
        pattern: of the names.
        names: as messages list them: the names, or forms such as ``mlp-WIDTH``.
        task: what data the models are for.
        make: makes a model of its name and further arguments, ``num_classes`` among them.
        arguments: of a model, where no data tell them: of the numbers of classes and of channels.
        example: two random samples, of the number of channels; None for images, whose size depends on the model.
    """

    pattern: re.Pattern[str]
    names: tuple[str, ...]
    task: Task
    make: Callable[..., nn.Module]
    arguments: Callable[[int, int], dict[str, int]]
    example: Callable[[int, torch.Generator], Tensor] | None = None


def image_arguments(num_classes: int, channels: int) -> dict[str, int]:
    """Arguments of models for images."""
    return {"num_classes": num_classes, "in_chans": channels}
