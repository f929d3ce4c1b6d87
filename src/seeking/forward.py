"""Run a model on a batch."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.utils.rnn import PackedSequence

Forward = Callable[[nn.Module, Any], Any]
"""Runs a model on a batch and returns its output."""


def call(model: nn.Module, batch: Any) -> Any:
    """``model(batch)``, ``model(*batch)`` for a tuple or list, ``model(**batch)`` for a mapping."""
    if isinstance(batch, Mapping):
        return model(**batch)
    # A packed sequence is one input, though it is a tuple.
    several = isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence)
    return model(*batch) if several else model(batch)


def call_with_one(model: nn.Module, inputs: Any) -> Any:
    """``model(inputs)``, also where these are a tuple, a list or a mapping."""
    return model(inputs)
