"""Weights that cannot be shared with another model: computed from others, or other ones in evaluation."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from seeking.copies import inspecting, scratch_copy
from seeking.errors import SeekingError
from seeking.internals import reparametrizations
from seeking.verification.compare import relative_difference
from seeking.verification.extra import extra_modules
from seeking.verification.weights import hold, random_weights
from seeking.weights_map import WeightsMap, owners, tensors

ROUNDING = 1e-5
"""Greatest relative difference of weights that count as equal."""


def check_parametrizations(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, *, extra: bool) -> None:
    """Make sure that of a weight that is computed from others, a part is computed from their parts.

    Under ``weight_norm``, it is, as long as the rest is zero; what a statistic of the whole tells, as that of
    ``spectral_norm`` or ``orthogonal`` does, is something else.

    Args:
        base: the smaller model.
        motivated: the larger model.
        weights_map: of the base in the motivated model.
        extra: whether modules that hold nothing of the base are to be neutral.

    Raises:
        SeekingError: there is a weight of which this is not so.
    """
    cure = "; remove the parametrization from both models first (remove_parametrizations)"
    for name, entry in weights_map.entries.items():
        if entry.whole or not (kind := _parametrization(base, name)):
            continue
        if not _computes_part(base, motivated, weights_map, name):
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
    with inspecting():
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


def _computes_part(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, name: str) -> bool:
    """Whether the base's part of the originals of a weight, with zeros besides, makes the base's part of the weight."""
    target = weights_map.entries[name].target
    sources = [_source(model, at) for model, at in ((base, name), (motivated, target))]
    if not all(sources):
        return False
    (own_path, leaves, compute), (path, _, _) = (source for source in sources if source)
    small, large = scratch_copy(base.get_submodule(own_path)), scratch_copy(motivated.get_submodule(path))
    random = random_weights(small, seed=0)
    own = {leaf: random[leaf] for leaf in leaves}
    values = {f"{path}.{leaf}": tensor.detach() for leaf, tensor in tensors(large).items()}
    for leaf, _ in large.named_parameters(remove_duplicate=False):
        values[f"{path}.{leaf}"] = torch.zeros_like(values[f"{path}.{leaf}"])
    try:
        values = weights_map.embed({f"{own_path}.{leaf}": tensor for leaf, tensor in own.items()}, values)
        with inspecting(small, large):
            hold(small, {**tensors(small), **own})
            hold(large, {leaf: values[f"{path}.{leaf}"] for leaf in tensors(large)})
            weights = compute(small), compute(large)
    except Exception:
        return False
    return any(
        entry.shape == weights[0].shape
        and entry.target_shape == weights[1].shape
        and relative_difference(weights[0], weights[1][entry.mesh(weights[1].device)]) <= ROUNDING
        for entry in (weights_map.entries[f"{own_path}.{leaf}"] for leaf in leaves)
    )


def _source(model: nn.Module, name: str) -> tuple[str, list[str], Callable[[nn.Module], Tensor]] | None:
    """The module that computes a weight, the names of its parameters in it, and how; None if that changes its state."""
    if outer := _parametrization_list(model, name):
        in_list = model.get_submodule(outer).named_parameters(remove_duplicate=False)
        return outer, [leaf for leaf, _ in in_list], lambda module: module()
    owner, _, leaf = name.rpartition(".")
    for place, hook in enumerate(reparametrizations(model.get_submodule(owner))):
        originals = [f"{hook.name}_g", f"{hook.name}_v"]  # Of weight_norm; spectral_norm has other ones.
        if leaf in originals:
            return owner, originals, functools.partial(_computed, place=place)
    return None


def _computed(module: nn.Module, place: int) -> Tensor:
    weight: Tensor = reparametrizations(module)[place].compute_weight(module)
    return weight


def _parametrization_list(model: nn.Module, name: str) -> str:
    """The name of the list of parametrizations that a tensor is in; empty if there is none."""
    lists = parametrize.ParametrizationList
    return next((outer for outer in reversed(owners(name)) if isinstance(model.get_submodule(outer), lists)), "")


def _parametrization(model: nn.Module, name: str) -> str:
    """What a tensor is an original or a statistic of; empty if it is a plain one."""
    owner, _, leaf = name.rpartition(".")
    if outer := _parametrization_list(model, name):
        return type(next(model.get_submodule(outer).children())).__name__
    for hook in reparametrizations(model.get_submodule(owner)):
        if leaf.startswith(hook.name):
            return type(hook).__name__
    return ""
