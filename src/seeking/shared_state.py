"""Optimizer states that two models share through the map."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seeking.errors import SeekingError
from seeking.weights_map import Entry, is_packed, tensors_in


def is_elementwise(value: Any, parameter: Tensor) -> bool:
    """Whether what an optimizer keeps for a parameter has a value for each of its entries, or one for all."""
    if not isinstance(value, Tensor):
        return not tensors_in(value)
    return not is_packed(value) and (value.numel() <= 1 or value.shape == parameter.shape)


@dataclass(frozen=True)
class SharedState:
    """The states (momentum, second moments, step counts) that the optimizers of two models keep for what they share.

    Attributes:
        base: the smaller model.
        motivated: the larger model.
        entries: of the map, by name of the shared base tensor.
        tie: whether tensors that are the whole of their target are tied.
    """

    base: nn.Module
    motivated: nn.Module
    entries: Mapping[str, Entry]
    tie: bool

    def check(self, *optimizers: Optimizer) -> None:
        """Check that the states of the base's and the motivated model's optimizer can be shared.

        Raises:
            SeekingError: one has no value for each entry of a parameter.
        """
        models = self.base, self.motivated
        for optimizer, model, side in zip(optimizers, models, ("base", "motivated model"), strict=True):
            parameters = dict(model.named_parameters())
            for name, entry in self.entries.items():
                own = name if model is self.base else entry.target
                parameter = parameters.get(own)
                if parameter is None or (self.tie and entry.whole):
                    continue
                for slot, value in optimizer.state.get(parameter, {}).items():
                    if not is_elementwise(value, parameter):
                        raise SeekingError(
                            f"optimizer {type(optimizer).__name__} of the {side}: its state {slot!r} for {own} has no "
                            f"value for each entry of the parameter, of shape {list(parameter.shape)}, so it cannot be "
                            "shared through the map; let each model keep its own state, or take another optimizer"
                        )

    def copy(self, base: Optimizer, motivated: Optimizer, *, into_motivated: bool) -> None:
        """Copy the states of sliced tensors one way; tied ones get one state."""
        small, large = dict(self.base.named_parameters()), dict(self.motivated.named_parameters())
        for name, entry in self.entries.items():
            parameter, counterpart = small.get(name), large.get(entry.target)
            if parameter is None or counterpart is None:
                continue
            known = base.state.get(parameter)
            if not known and not into_motivated:
                known = motivated.state.get(counterpart)  # The base has not taken a step of its own.
            if not known:
                continue
            if self.tie and entry.whole:
                base.state[parameter] = motivated.state[counterpart] = known
                continue
            # What has been entered is left the same way: values that are no tensors, such as counts, go along.
            both = (parameter, base.state[parameter]), (counterpart, motivated.state[counterpart])
            (source, read), (target, written) = both if into_motivated else both[::-1]
            for slot, value in read.items():
                if not isinstance(value, Tensor):
                    written[slot] = value
                    continue
                sliced = value.shape == source.shape
                if not isinstance(written.get(slot), Tensor):
                    written[slot] = torch.zeros_like(target, dtype=value.dtype) if sliced else value.clone()
                values = base.state[parameter][slot], motivated.state[counterpart][slot]
                for base_view, view in block_views(*values, entry) if sliced else [values]:
                    if into_motivated:
                        view.copy_(base_view)
                    else:
                        base_view.copy_(view)


def part_state(base: Optimizer, motivated: Optimizer) -> None:
    """Give each optimizer a state of its own where both have one."""
    shared = {id(state) for state in base.state.values()}
    for parameter, state in motivated.state.items():
        if id(state) in shared:
            motivated.state[parameter] = {
                slot: value.clone() if isinstance(value, Tensor) else value for slot, value in state.items()
            }


def block_views(source: Tensor, target: Tensor, entry: Entry) -> list[tuple[Tensor, Tensor]]:
    """Views of the blocks of a base tensor, each with its place in the target."""
    return [(source.data[here], target.data[there]) for here, there in entry.blocks()]
