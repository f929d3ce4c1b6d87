"""The tensors of a model that depend on the number of classes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import nn

from seeking.errors import SeekingError
from seeking.weights_map import tensors

MakeModel = Callable[[int], nn.Module]
"""Makes a model for a number of classes."""


class ClassDimension(NamedTuple):
    """The dimension of a tensor that grows with the number of classes: ``size = offset + slope * classes``."""

    dimension: int
    slope: int
    offset: int


def head(make: MakeModel) -> dict[str, ClassDimension]:
    """The tensors of a model that depend on the number of classes, found by making it for two numbers of them."""
    fewer, more = 10, 11
    small, large = (tensors(make(classes)) for classes in (fewer, more))
    found = {}
    for name in small:
        for dimension, (size, grown) in enumerate(zip(small[name].shape, large[name].shape, strict=True)):
            if size != grown:
                slope = (grown - size) // (more - fewer)
                found[name] = ClassDimension(dimension, slope, size - slope * fewer)
    return found


def classes_of_weights(shapes: Mapping[str, tuple[int, ...]], make: MakeModel, source: str) -> int | None:
    """The number of classes for which weights of these shapes were made; None if no tensor tells.

    Args:
        shapes: of the weights, by name.
        make: makes the model that they are of.
        source: of the weights, for the error message.

    Raises:
        SeekingError: their tensors tell different numbers.
    """
    numbers: dict[int, str] = {}
    for name, (dimension, slope, offset) in head(make).items():
        if len(shapes.get(name, ())) > dimension:
            numbers.setdefault((shapes[name][dimension] - offset) // slope, name)
    if len(numbers) > 1:
        told = ", ".join(f"{number} by {name}" for number, name in sorted(numbers.items()))
        raise SeekingError(f"{source}: the number of classes is {told}; give it as num_classes")
    return next(iter(numbers), None)
