"""Multilayer perceptrons for tables, by their width."""

import itertools
import re

from torch import nn

NAME = re.compile(r"mlp-([1-9]\d*)")
FORM = "mlp-WIDTH"


def is_mlp(name: str) -> bool:
    """Whether this is the name of a multilayer perceptron."""
    return NAME.fullmatch(name) is not None


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
