"""Layers that drop out at different rates in the two models."""

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


def _rate(module: nn.Module) -> float:
    rate = getattr(module, "drop_prob", None)
    if rate is None and isinstance(module, Dropout):
        rate = module.p
    return float(rate or 0)
