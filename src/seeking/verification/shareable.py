"""Weights that cannot be shared with another model: computed from others, or other ones in evaluation."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from seeking.copies import evaluating, scratch_copy
from seeking.errors import SeekingError
from seeking.internals import reparametrizations
from seeking.verification.extra import extra_modules
from seeking.verification.weights import hold, random_weights
from seeking.weights_map import WeightsMap, tensors


def check_parametrizations(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, *, extra: bool) -> None:
    """Make sure that no weight that is computed from others has only a part in the map.

    Args:
        base: the smaller model.
        motivated: the larger model.
        weights_map: of the base in the motivated model.
        extra: whether modules that hold nothing of the base are to be neutral.

    Raises:
        SeekingError: there is such a weight, as under ``weight_norm`` or ``spectral_norm``.
    """
    cure = "; remove the parametrization from both models first (remove_parametrizations)"
    for name, entry in weights_map.entries.items():
        if not entry.whole and (kind := _parametrization(base, name)):
            raise SeekingError(
                f"{name} is part of a weight under {kind} that is {list(entry.shape)} in the base and "
                f"{list(entry.target_shape)} in the motivated model: what is computed from the whole of it is not what "
                f"is computed from a part{cure}"
            )
    for name in extra_modules(motivated, weights_map) if extra else ():
        for leaf, _ in motivated.get_submodule(name).named_parameters():
            if kind := _parametrization(motivated, f"{name}.{leaf}"):
                raise SeekingError(
                    f"{name}.{leaf}, which only the motivated model has, is under {kind}, and cannot be made "
                    f"neutral{cure}"
                )


def check_modes(model: nn.Module, role: str) -> None:
    """Make sure that no weight depends on whether a model trains, as of LoRA that merges on ``eval()``.

    Raises:
        SeekingError: one does.
    """
    if all(type(module).train is nn.Module.train for module in model.modules()):
        return
    twin = scratch_copy(model)
    hold(twin, random_weights(twin, seed=0))
    before = {name: tensor.detach().clone() for name, tensor in tensors(twin).items()}
    with evaluating():
        for mode in (not model.training, model.training):
            twin.train(mode)
            after = tensors(twin)
            for name in {**before, **after}:
                same = name in before and name in after and before[name].shape == after[name].shape
                if not same or not torch.equal(before[name], after[name]):
                    raise SeekingError(
                        f"{name} of the {role} is another under train({mode}): its values would be copied to the other "
                        "model as if they were weights; leave them alone in train() and eval(), and merge after "
                        "training"
                    )


def _parametrization(model: nn.Module, name: str) -> str:
    """What a tensor is an original or a statistic of; empty if it is a plain one."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(module, parametrize.ParametrizationList):
        return type(module[0]).__name__
    path = owner.split(".")
    for end in range(len(path), 0, -1):
        outer = model.get_submodule(".".join(path[:end]))
        if isinstance(outer, parametrize.ParametrizationList):
            return type(outer[0]).__name__
    for hook in reparametrizations(module):
        if leaf.startswith(hook.name):
            return type(hook).__name__
    return ""
