"""The extra modules of a motivated model: those that hold nothing of the base."""

import itertools
from collections.abc import Iterator

from torch import nn

from seeking.weights_map import WeightsMap, owners


def extra_modules(motivated: nn.Module, weights_map: WeightsMap) -> list[str]:
    """Names of the outermost modules that hold tensors, but nothing of the base, such as extra blocks."""
    shared = {""}
    for entry in weights_map.entries.values():
        shared.update(owners(entry.target))
    return [
        name
        for name, module in motivated.named_modules()
        if name not in shared
        and name.rpartition(".")[0] in shared
        and next(itertools.chain(module.parameters(), module.buffers()), None) is not None
    ]


def scales(block: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of a block that scale channels, other than those of norms."""
    for module in block.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < 2 and "bias" not in name and "Norm" not in type(module).__name__:
                yield parameter
