"""Notice a pretrained motivated model whose weights are about to be replaced by the base's."""

import warnings

import torch
from torch import Tensor, nn

from seeking.errors import RunWarning
from seeking.weights_map import WeightsMap


def warn_of_overwritten(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap) -> None:
    """Warn if the base's weights are to replace other ones that the motivated model seems to have learnt.

    For when the user has not said whose the shared part is. Seen by the scales of norms, parameters ``weight`` of one
    dimension: in a new model, all entries of one are equal. Models without such are not judged.
    """
    given = {name: scale for name, scale in base.named_parameters(remove_duplicate=False) if _is_scale(name, scale)}
    targets = {weights_map.shared.entries[name].target for name in given if name in weights_map.shared.entries}
    large = {name: p for name, p in motivated.named_parameters(remove_duplicate=False) if name in targets}
    part = weights_map.shared.extract(large)
    replaced = {name: scale.detach().cpu() for name, scale in part.items() if name in given}
    new = {name: given[name].detach().cpu() for name in replaced}
    if not _learnt(replaced) or all(torch.equal(new[name], scale) for name, scale in replaced.items()):
        return
    both = _learnt(new)
    warnings.warn(
        ("both models seem" if both else "the motivated model seems") + " to be pretrained, and the weights "
        f"of {'the' if both else 'a new'} base now replace those of the motivated model that they share. Give "
        "shared_from='motivated' to keep these instead, or shared_from='base' if that is meant",
        RunWarning,
        stacklevel=3,
    )


def _is_scale(name: str, parameter: Tensor) -> bool:
    return name.rpartition(".")[2] == "weight" and parameter.dim() == 1 < len(parameter) and not parameter.is_meta


def _learnt(scales: dict[str, Tensor]) -> bool:
    """Whether the entries of most of them differ."""
    return 2 * sum(bool((scale != scale[0]).any()) for scale in scales.values()) > len(scales)
