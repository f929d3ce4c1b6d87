"""The tensors of a model that depend on an argument of its constructor, such as the number of classes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import nn

from seeking.errors import SeekingError
from seeking.weights_map import tensors

Shapes = Mapping[str, tuple[int, ...]]
"""Of tensors, by name."""

MakeModel = Callable[..., nn.Module]
"""Makes a model with these arguments."""


class Growing(NamedTuple):
    """The dimension of a tensor that grows with an argument: ``size = offset + slope * argument``."""

    dimension: int
    slope: int
    offset: int


def shapes_of(model: nn.Module) -> Shapes:
    """The shapes of a model's tensors."""
    return {name: tuple(tensor.shape) for name, tensor in tensors(model).items()}


def growing(small: Shapes, large: Shapes, argument: int) -> dict[str, Growing]:
    """The tensors that depend on an argument.

    Args:
        small: of a model with this argument.
        large: of the same with one more.
        argument: its value.
    """
    by_name = {}
    for name, sizes in small.items():
        for dimension, (size, grown) in enumerate(zip(sizes, large.get(name, sizes), strict=True)):
            if size != grown:
                by_name[name] = Growing(dimension, grown - size, size - (grown - size) * argument)
    return by_name


def arguments_of_weights(shapes: Shapes, make: MakeModel, usual: Mapping[str, int], source: str) -> dict[str, int]:
    """The arguments of the model that weights of these shapes were made with; those that no tensor tells are left out.

    Args:
        shapes: of the weights.
        make: makes the model that they are of.
        usual: the arguments, with any value with which the model can be made, and with one more.
        source: of the weights, for the error message.

    Raises:
        SeekingError: their tensors tell different values of an argument.
    """
    told: dict[str, int] = {}
    small = shapes_of(make(**usual))
    for argument, value in usual.items():
        values: dict[int, str] = {}
        large = shapes_of(make(**{**usual, argument: value + 1}))
        for name, (dimension, slope, offset) in growing(small, large, value).items():
            if len(shapes.get(name, ())) > dimension:
                values.setdefault((shapes[name][dimension] - offset) // slope, name)
        if len(values) > 1:
            by = ", ".join(f"{value} by {name}" for value, name in sorted(values.items()))
            raise SeekingError(f"{source}: {argument} is {by}; give {argument}")
        if values:
            (told[argument],) = values
    return told
