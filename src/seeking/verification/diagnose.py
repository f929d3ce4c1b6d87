"""Why two layers differ, where no map could make them agree."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from seeking.verification.compare import relative_difference
from seeking.weights_map import WeightsMap, in_double, tensors, tensors_in


def obstacle(motivated: nn.Module, records: Iterable[tuple[str, Any]], tolerance: float) -> str:
    """A sentence on the first extra module that changes its input; empty if all are the identity.

    Args:
        motivated: the larger model.
        records: names of extra modules with their inputs and outputs.
        tolerance: greatest relative difference that counts as none.
    """
    for name, (inputs, output) in records:
        before, after = tensors_in(inputs), tensors_in(output)
        if before and after and not relative_difference(before[0], after[0]) <= tolerance:
            kind = type(motivated.get_submodule(name)).__name__
            return f"{name} ({kind}), which only the motivated model has, changes its input even where it adds nothing"
    return ""


def differing_setting(base: nn.Module, motivated: nn.Module, name: str, counterpart: str) -> str:
    """A sentence on a setting, or a module without tensors, in which two layers or their parents differ."""
    types = [type(model.get_submodule(at)) for model, at in ((base, name), (motivated, counterpart))]
    if types[0] is not types[1]:
        return f"{name} is {types[0].__name__} in the base and {types[1].__name__} in the motivated model"
    while True:
        small, large = base.get_submodule(name), motivated.get_submodule(counterpart)
        for setting, value in vars(small).items():
            other = getattr(large, setting, None)
            is_number = type(value) is type(other) in (float, bool)
            matters = is_number and setting != "momentum" and "drop" not in setting
            if (matters or setting in ("stride", "padding", "dilation")) and value != other:
                owner = name or type(small).__name__
                return f"{owner}.{setting} is {value} in the base and {other} in the motivated model"
        for child, module in small.named_children():
            other = getattr(large, child, None)
            without_tensors = not tensors(module) and isinstance(other, nn.Module) and not tensors(other)
            if without_tensors and type(module) is not type(other) and "drop" not in child:
                kinds = f"{type(module).__name__} in the base and {type(other).__name__} in the motivated model"
                return f"{name}.{child} is {kinds}".removeprefix(".")
        if not name or not counterpart:
            return ""
        name, counterpart = name.rpartition(".")[0], counterpart.rpartition(".")[0]


def differing_count(layers: Mapping[str, str], base: Sequence[str], motivated: Sequence[str]) -> str:
    """A sentence on the first layer that runs more often in one model; empty if there is none.

    Args:
        layers: the motivated model's layer for each of the base's.
        base: names of the layers that ran in the base, each time.
        motivated: names of those that ran in the motivated model.
    """
    for name, counterpart in layers.items():
        counts = base.count(name), motivated.count(counterpart)
        if counts[0] != counts[1]:
            return f"{name} runs {counts[0]} times in the base and {counts[1]} times in the motivated model"
    return ""


def more_recurrent_layers(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap) -> str:
    """A sentence on a recurrent module that has more layers in the motivated model; empty if there is none."""
    for name, entry in weights_map.entries.items():
        places = name.rpartition(".")[0], entry.target.rpartition(".")[0]
        small, large = base.get_submodule(places[0]), motivated.get_submodule(places[1])
        if isinstance(small, nn.RNNBase) and isinstance(large, nn.RNNBase) and small.num_layers != large.num_layers:
            return (
                f"{places[0]} has {small.num_layers} recurrent layers in the base and {large.num_layers} in the "
                "motivated model, of which none is the identity"
            )
    return ""


def constant_factor(base: Tensor, motivated: Tensor, tolerance: float) -> str:
    """A sentence on the factor by which one layer's output is a multiple of the other's; empty if it is none."""
    if base.shape != motivated.shape or base.is_complex():
        return ""
    base, motivated = in_double(base), in_double(motivated)
    factor = float((base * motivated).sum() / (motivated * motivated).sum().clamp_min(1e-30))
    if factor <= 0 or relative_difference(base, factor * motivated) > tolerance:
        return ""
    return f"a constant factor, {factor:.4g}, that the forward pass takes from the size of the model"


def own_constant(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, names: Iterable[str]) -> str:
    """A sentence on one of the constants of which the models have other values; on none that counts, if possible."""
    buffers = tensors(base)
    name = min(names, key=lambda name: (not buffers[name].is_floating_point(), name))
    small = buffers[name]
    target = weights_map.entries[name].target
    large = weights_map.extract({target: tensors(motivated)[target]})[name].to(small.device)
    place = int((small != large).flatten().nonzero()[0])
    values = [f"{tensor.flatten()[place].item():.4g}" for tensor in (small, large)]
    return (
        f"the buffer {name}, which training does not change, is {values[0]} in the base and {values[1]} in {target} of "
        "the motivated model; give both models the same values first, if they may have the same"
    )
