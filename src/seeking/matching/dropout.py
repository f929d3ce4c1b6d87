"""Layers that drop out at different rates in the two models."""

import sys
from collections.abc import Mapping

from torch import nn

from seeking.internals import Dropout


def differing_rates(base: nn.Module, motivated: nn.Module, counterparts: Mapping[str, str]) -> list[str]:
    """For each shared layer whose rate of dropout or stochastic depth differs, its name and both rates.

    Args:
        base: the smaller model.
        motivated: the larger model.
        counterparts: the motivated model's module for each of the base's, by name.
    """
    differing = []
    for name, counterpart in counterparts.items():
        small, large = _rate(base.get_submodule(name)), _rate(motivated.get_submodule(counterpart))
        if small != large:
            differing.append(f"{name}: {small:g} in the base, {large:g} in the motivated model")
    return differing


def drops_out(module: nn.Module) -> bool:
    """Whether a module is a layer of dropout or, as in timm, transformers and torchvision, of stochastic depth."""
    return _name_of_rate(module) is not None


def is_rate(module: object, name: str) -> bool:
    """Whether this attribute of a module is its rate of dropout or stochastic depth."""
    return isinstance(module, nn.Module) and name == _name_of_rate(module)


def _name_of_rate(module: nn.Module) -> str | None:
    if hasattr(module, "drop_prob"):
        return "drop_prob"
    of_torchvision = getattr(sys.modules.get("torchvision.ops"), "StochasticDepth", Dropout)
    return "p" if isinstance(module, (Dropout, of_torchvision)) else None


def _rate(module: nn.Module) -> float:
    name = _name_of_rate(module)
    return float(getattr(module, name, None) or 0) if name else 0.0
