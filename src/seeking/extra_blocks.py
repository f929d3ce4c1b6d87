"""The blocks that a motivated model has in addition to the base's, made to add nothing."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from seeking.verification.extra import scales
from seeking.weights_map import tensors_in


class ExtraBlocks:
    """The extra blocks of a motivated model, and what they do in the latest forward pass.

    Attributes:
        modules: the blocks by name.
        layers: for each block its modules with parameters, in the order in which they first ran.
        is_identity: whether each block put out its input, or zeros where these are allowed.
        may_be_zero: whether blocks may put out zeros, since the model itself adds their input.
    """

    def __init__(self, motivated: nn.Module, names: Iterable[str]) -> None:
        self.modules = {name: motivated.get_submodule(name) for name in names}
        self.layers: dict[str, list[nn.Module]] = {name: [] for name in self.modules}
        self.is_identity: dict[str, bool] = {}
        self.may_be_zero = False
        blocks = tuple(f"{name}." for name in self.modules)
        others = {p for name, p in motivated.named_parameters(remove_duplicate=False) if not name.startswith(blocks)}
        parameters = [parameter for block in self.modules.values() for parameter in block.parameters()]
        # What the base has, too, stays.
        self._own = {parameter: parameter.clone() for parameter in parameters if parameter not in others}
        self._neutral: dict[nn.Parameter, float] = dict.fromkeys(self._own, 0.0)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Record what the blocks do."""
        with contextlib.ExitStack() as stack:
            for name, block in self.modules.items():
                stack.enter_context(block.register_forward_hook(self._compare(name), with_kwargs=True))
                for layer in block.modules():
                    stack.enter_context(layer.register_forward_hook(self._record(name)))
            yield

    def failing(self) -> set[str]:
        """Names of the blocks that are not the identity."""
        return {name for name in self.modules if not self.is_identity.get(name)}

    def zero_all(self) -> None:
        """Zero every parameter of every block."""
        for block in self.modules.values():
            for layer in block.modules():
                self.silence(layer)

    def scale_by_one(self, names: Iterable[str]) -> None:
        """Silence blocks, but for parameters that scale: these are one."""
        for name in names:
            self._neutral.update(dict.fromkeys(scales(self.modules[name]), 1.0))
            for layer in self.modules[name].modules():
                self.silence(layer)

    def restore(self, layer: nn.Module) -> None:
        """Give a layer its own weights back."""
        for parameter in self._own_of(layer):
            parameter.copy_(self._own[parameter])

    def silence(self, layer: nn.Module) -> None:
        """Fill a layer with its neutral values."""
        for parameter in self._own_of(layer):
            parameter.fill_(self._neutral[parameter])

    def _own_of(self, layer: nn.Module) -> list[nn.Parameter]:
        return [parameter for parameter in layer.parameters(recurse=False) if parameter in self._own]

    def _compare(self, name: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before, after = tensors_in((args, kwargs)), tensors_in(output)
            kinds = [[(tensor.shape, tensor.dtype) for tensor in each] for each in (before, after)]
            # Several streams, each with its own shortcut, or one and what it is computed with.
            compared = len(before) if kinds[0] == kinds[1] else 1
            same = bool(before and after) and all(map(torch.equal, before[:compared], after[:compared]))
            zero = self.may_be_zero and bool(after) and not any(bool(tensor.any()) for tensor in after)
            self.is_identity[name] = same or zero

        return hook

    def _record(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if module not in self.layers[name] and next(module.parameters(recurse=False), None) is not None:
                self.layers[name].append(module)

        return hook
