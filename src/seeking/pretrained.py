"""Notice a pretrained model whose weights are about to be replaced by the other model's."""

import warnings

import torch
from torch import Tensor, nn

from seeking.choices import Model
from seeking.errors import RunWarning
from seeking.weights_map import WeightsMap


def warn_of_overwritten(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, owner: Model | None) -> None:
    """Warn if weights that a model seems to have learnt are about to be replaced by the other model's.

    With the base as owner by default, of any of the motivated model's; with the motivated model as owner, which recipes
    may say, of the base's by those of a new model. A base that the user has named as owner replaces what it may.

    Seen by the scales of norms, parameters ``weight`` of one dimension: in a new model, all entries of one are equal.
    Models without such are not judged.

    Args:
        base: the base.
        motivated: the motivated model.
        weights_map: position of the base in it.
        owner: the model whose the shared part is; None if the user has not said it.
    """
    if owner == "base":
        return
    given = {name: scale for name, scale in base.named_parameters(remove_duplicate=False) if _is_scale(name, scale)}
    targets = {weights_map.shared.entries[name].target for name in given if name in weights_map.shared.entries}
    large = {name: p for name, p in motivated.named_parameters(remove_duplicate=False) if name in targets}
    part = {name: scale.detach().cpu() for name, scale in weights_map.shared.extract(large).items() if name in given}
    of_base = {name: given[name].detach().cpu() for name in part}
    if all(torch.equal(of_base[name], scale) for name, scale in part.items()):
        return
    if owner == "motivated":
        if _learnt(of_base) and not _learnt(part):
            _warn(
                "the base seems to be pretrained, and the weights of a new motivated model now replace those of the "
                "base that they share (shared_from is 'motivated', as in the recipe best). Give shared_from='base' to "
                "keep these, or a motivated model that is pretrained, too"
            )
    elif _learnt(part):
        both = _learnt(of_base)
        _warn(
            ("both models seem" if both else "the motivated model seems") + " to be pretrained, and the weights of "
            f"{'the' if both else 'a new'} base now replace those of the motivated model that they share. Give "
            "shared_from='motivated' to keep these instead, or shared_from='base' if that is meant"
        )


def _warn(text: str) -> None:
    warnings.warn(text, RunWarning, stacklevel=4)


def _is_scale(name: str, parameter: Tensor) -> bool:
    return name.rpartition(".")[2] == "weight" and parameter.dim() == 1 < len(parameter) and not parameter.is_meta


def _learnt(scales: dict[str, Tensor]) -> bool:
    """Whether the entries of most of them differ."""
    return 2 * sum(bool((scale != scale[0]).any()) for scale in scales.values()) > len(scales)
