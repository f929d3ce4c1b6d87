"""Run a model on a batch without changing the model."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

Forward = Callable[[nn.Module, Any], Any]
"""Runs a model on a batch and returns its output."""

CONTAINERS = ("_parameters", "_buffers", "_modules")


def call(model: nn.Module, batch: Any) -> Any:
    """``model(batch)``, ``model(*batch)`` for a tuple or list, ``model(**batch)`` for a mapping."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; on exit every attribute is restored, also those that its forward set."""
    states = []
    for module in model.modules():
        containers = {key: dict(value) for key, value in vars(module).items() if key in CONTAINERS}
        states.append((module, dict(vars(module)), containers))
    fastpath = torch.backends.mha.get_fastpath_enabled()
    try:
        model.eval()
        # The fast path is one opaque operation and may return nested tensors.
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module, attributes, containers in states:
            current = vars(module)
            for key in current.keys() - attributes.keys():
                del current[key]
            current.update(attributes)
            for key, content in containers.items():
                current[key].clear()
                current[key].update(content)
