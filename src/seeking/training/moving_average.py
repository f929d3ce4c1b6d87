"""The moving average of a model's weights over the batches of a run."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from seeking.distributed.sharding import copy_into
from seeking.internals import foreach_copy
from seeking.training.learner import model_state
from seeking.weights_map import tensors


class Average:
    """The exponential moving average of a model's parameters and buffers; integers are those of the model.

    In the first batches the decay is smaller, ``(1 + n) / (10 + n)`` after n of them, so that the initial weights are
    soon forgotten. Averages of two models that share weights share them as well.

    Args:
        module: the model; with its current weights the average begins.
        decay: of the average with every batch, in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self._batches = 0
        self._values: dict[str, Tensor] = {}
        copies: dict[int, Tensor] = {}
        for name, tensor in tensors(module).items():
            self._values[name] = copies.setdefault(id(tensor), tensor.detach().clone())

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights after a batch."""
        averages, current = self._lists()
        floating = [number for number, average in enumerate(averages) if average.is_floating_point()]
        decay = min(self._decay, (1 + self._batches) / (10 + self._batches))
        if floating:
            get_ema_multi_avg_fn(decay)([averages[n] for n in floating], [current[n] for n in floating], None)
        for number in set(range(len(averages))).difference(floating):
            averages[number].copy_(current[number])
        self._batches += 1

    @contextlib.contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """Inside, the model has the averages; what becomes of its buffers there is kept with them."""
        averages, current = self._lists()
        with torch.no_grad():
            own = [tensor.clone() for tensor in current]
            foreach_copy(current, averages)
        try:
            yield self._module
        finally:
            with torch.no_grad():
                foreach_copy(averages, current)
                foreach_copy(current, own)

    def _lists(self) -> tuple[list[Tensor], list[Tensor]]:
        """The averages and the model's tensors, tied ones once."""
        pairs = {id(self._values[name]): (self._values[name], tensor) for name, tensor in tensors(self._module).items()}
        return [average for average, _ in pairs.values()], [tensor.detach() for _, tensor in pairs.values()]

    def state_dict(self) -> dict[str, Any]:
        """The averages, in the form of a learner's model, and the number of batches."""
        return {"model": {**model_state(self._module), "tensors": dict(self._values)}, "batches": self._batches}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there.

        Raises:
            LookupError, RuntimeError: it is the state of another model.
        """
        for name, average in self._values.items():
            copy_into(average, state["model"]["tensors"][name])
        self._batches = int(state["batches"])
