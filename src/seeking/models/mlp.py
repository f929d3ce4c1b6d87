"""Multilayer perceptrons for tables, by their width."""

import itertools
import re

import torch
from torch import nn

from seeking.models.family import Family

NAME = re.compile(r"mlp-([1-9]\d*)")


def mlp(name: str, *, num_classes: int, in_features: int, depth: int = 2) -> nn.Module:
    """A perceptron with ReLUs, such as ``mlp-64``: hidden layers of 64 channels.

    Maps rows ``[batch, in_features]`` to logits ``[batch, num_classes]``.

    Args:
        name: names the width.
        num_classes: number of classes.
        in_features: number of columns.
        depth: number of hidden layers.

    Raises:
        ValueError: that is no number of layers.
    """
    if type(depth) is not int or depth < 0:
        raise ValueError(f"depth is {depth!r}; it must be a whole number, 0 or more")
    match = NAME.fullmatch(name)
    assert match
    widths = [in_features, *[int(match[1])] * depth]
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))


FAMILY = Family(
    pattern=NAME,
    names=("mlp-WIDTH",),
    task="tabular",
    make=mlp,
    arguments=lambda num_classes, channels: {"num_classes": num_classes, "in_features": channels},
    example=lambda channels, generator: torch.randn(2, channels, generator=generator),
)
