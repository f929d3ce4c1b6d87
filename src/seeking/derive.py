"""The map of a pair that was given none: derived, and refused where a part of it is only guessed."""

from typing import Any

from torch import nn

from seeking.errors import SeekingError
from seeking.forward import Forward
from seeking.matching import match
from seeking.matching.model_axes import BY_NAME, UNREACHED
from seeking.verification.constants import changed_by_training
from seeking.weights_map import WeightsMap


def derive(base: nn.Module, motivated: nn.Module, batch: Any, forward: Forward | None) -> WeightsMap:
    """Derive a map that may be taken as it is.

    It does not matter where a buffer lies that training does not change: equal values stay as they are, and others are
    not shared.

    Args:
        base: the smaller model; left as it is.
        motivated: the larger model; left as it is.
        batch: one input, as ``forward`` takes it, or None.
        forward: runs a model on the batch; as in ``seeking.match``.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: which part of a tensor is the base's is known from names and shapes alone.
    """
    weights_map = match(base, motivated, batch=batch, forward=forward)
    guessed = {
        name: entry
        for name, entry in weights_map.entries.items()
        if not entry.whole and entry.origin in (BY_NAME, UNREACHED)
    }
    if not guessed:
        return weights_map
    changed = changed_by_training(base, batch, forward)
    for name, entry in guessed.items():
        if changed is not None and entry.target in weights_map.buffers and name not in changed:
            continue
        problem = f"{name}: which part of {entry.target} is the base's is known from names and shapes alone"
        advice = "Pair(base, motivated, weights_map, batch=batch) takes a map of seeking.match as it is"
        if entry.origin == UNREACHED:
            raise SeekingError(
                f"{problem}, since no forward pass reaches it. Give Pair a batch, or a forward, that does; if it is of "
                f"no use, {advice}"
            )
        if forward is None and type(base).forward is nn.Module.forward:
            raise SeekingError(
                f"{problem}, since {type(base).__name__} has no forward. Give Pair a batch, and how to run a model on "
                "it, such as forward=lambda model, batch: model.net(batch)"
            )
        if batch is None:
            raise SeekingError(f"{problem}. Give Pair a batch")
        raise SeekingError(f"{problem}. Check a map with seeking.verify, and pass it on: {advice}")
    return weights_map
