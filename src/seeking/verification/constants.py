"""Constants of each model: buffers that training leaves as they are, of which the two models have other values."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import copied, random_state_preserved, scratch_copy, stateless
from seeking.errors import MatchWarning
from seeking.forward import Forward, call
from seeking.internals import StatisticsNorm, tree_map_only
from seeking.matching.example_inputs import example_inputs
from seeking.verification.compare import relative_difference
from seeking.verification.weights import multiplied
from seeking.weights_map import WeightsMap, is_real, tensors

ROUNDING = 1e-5
"""Constants may differ by so much, relative to the greatest entry, if they were computed in another order."""


def own_constants(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, batch: Any = None, forward: Forward | None = None
) -> frozenset[str]:
    """The buffers of the base that are not shared: constants that have other values in the motivated model.

    A buffer such as ``1 / width`` belongs to the model that computed it. A buffer that training changes, such as a
    running mean, is state, and is shared as the weights are. Which is which is seen in a forward pass of a copy of the
    base in training mode; there is none where all buffers agree.

    Args:
        base: the smaller model; left as it is.
        motivated: the larger model; left as it is.
        weights_map: of the base in the motivated model.
        batch: one input, as ``forward`` takes it; if not given, one is made where the base tells what it takes. If
            there is none, or the base refuses it in training mode, all buffers are constants but for the statistics of
            PyTorch's norms.
        forward: runs a model on the batch; as in ``seeking.verify``.

    Returns:
        Names in the base.
    """
    mapped = weights_map.extract(dict(motivated.named_buffers(remove_duplicate=False)))
    differing = {
        name
        for name, buffer in base.named_buffers(remove_duplicate=False)
        if name in mapped and not buffer.is_meta and not mapped[name].is_meta and _differ(buffer, mapped[name])
    }
    if not differing:
        return frozenset()
    changed = changed_by_training(base, batch, forward)
    constants = frozenset(differing - (_statistics(base) if changed is None else changed))
    if changed is None and constants:
        others = " and other buffers" if len(constants) > 1 else ""
        warnings.warn(
            f"whether training changes {min(constants)}{others} is not known, since "
            f"the base was not run in training mode{'; give a batch' if batch is None else ''}. Each model keeps "
            "its own values",
            MatchWarning,
            stacklevel=3,
        )
    return constants


def _differ(buffer: Tensor, other: Tensor) -> bool:
    if is_real(buffer):
        return relative_difference(buffer, other.to(buffer.device)) > ROUNDING
    return not torch.equal(buffer, other.to(buffer))


def _statistics(model: nn.Module) -> set[str]:
    """The buffers of PyTorch's norms, but for those that are frozen."""
    return {
        f"{path}.{leaf}".removeprefix(".")
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, StatisticsNorm) and (module.training or not model.training)
        for leaf, _ in module.named_buffers(recurse=False)
    }


def changed_by_training(model: nn.Module, batch: Any, forward: Forward | None) -> set[str] | None:
    """The buffers that training changes, as seen in a forward pass of a copy; None if no batch runs in training mode.

    Args:
        model: left as it is.
        batch: one input, as ``forward`` takes it; if None, one is made where the model tells what it takes.
        forward: runs a model on the batch; as in ``seeking.verify``.
    """
    run = stateless(forward) or call
    for example in _examples(model) if batch is None else [batch]:
        twin = scratch_copy(model)
        if not twin.training:  # As training does; modules that alone are in evaluation mode are frozen.
            twin.train()
        before = copied(dict(twin.named_buffers(remove_duplicate=False)))
        with contextlib.suppress(Exception), random_state_preserved(), torch.no_grad():
            run(twin, copied(example))
            # What has been estimated from this batch, or these weights, alone stays as it is on them.
            with contextlib.suppress(Exception):
                for parameter in twin.parameters():
                    parameter.copy_(multiplied(parameter, 1.5))
                run(twin, multiplied(copied(example), 1.5))
            break
    else:
        return None
    after = dict(twin.named_buffers(remove_duplicate=False))
    return _statistics(model) | {
        name for name, tensor in before.items() if name not in after or not torch.equal(after[name], tensor)
    }


def _examples(model: nn.Module) -> Iterator[Any]:
    device = next((tensor.device for tensor in tensors(model).values()), torch.device("cpu"))
    with contextlib.suppress(Exception):
        for example in example_inputs(model):
            yield tree_map_only(Tensor, lambda tensor: tensor.to(device), example)
