"""Compare what two models put out, layer by layer and at the end."""

from typing import Any

from torch import Tensor, nn

from seeking.verification.compare import Channels, at_base_channels, compare_outputs, relative_difference
from seeking.verification.diagnose import (
    constant_factor,
    differing_count,
    differing_setting,
    more_recurrent_layers,
    obstacle,
)
from seeking.verification.extra import extra_modules
from seeking.verification.recording import Records
from seeking.verification.verdict import Verification
from seeking.weights_map import WeightsMap, has_nan


def judge(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    small: Records,
    large: Records,
    tolerance: float,
    channels: Channels,
) -> Verification:
    """Compare what was recorded, layer by layer and at the end."""
    layers = compared_layers(weights_map)
    extra = set(extra_modules(motivated, weights_map))
    runs: dict[str, list[tuple[int, Any]]] = {}
    for place, (name, output) in enumerate(large):
        runs.setdefault(name, []).append((place, output))
    last_layer, last_place = "", -1

    def failure(problem: str, layer: str | None, end: int, cause: str = "") -> Verification:
        problem += f"; {last_layer}, run before it, agrees" if last_layer else "; it is the first layer compared"
        # Suspect are the extra modules that ran in between and, as there may be a shortcut, those in the same block.
        block = layers.get(last_layer, "").rpartition(".")[0] + "."
        suspects = [
            record
            for place, record in enumerate(large[:end])
            if record[0] in extra and (place > last_place or (block != "." and record[0].startswith(block)))
        ]
        cause = obstacle(motivated, suspects, tolerance) or cause
        # What another part of the model computes may have come in by another way.
        cause = cause or obstacle(motivated, [record for record in large[:end] if record[0] in extra], tolerance)
        cause = cause or differing_count(layers, [name for name, _ in small], [name for name, _ in large])
        cause = cause or more_recurrent_layers(base, motivated, weights_map)
        reason = f"{problem}: {cause}" if cause else problem
        if not cause and has_nan(large[-1][1]) and not has_nan(small[-1][1]):
            # Other neutral weights might do, of which nothing is known here.
            reason += ": the motivated model computes NaN where its extra weights are zero, as a division by them gives"
        return Verification(False, difference, layer, reason, contained=not cause)

    difference, problem = compare_outputs(small[-1][1], large[-1][1], channels)
    unjudged: list[str] = []  # Layers since the last one that agrees, of which the outputs say nothing by themselves.
    for name, small_output in small:
        if not name or not isinstance(small_output, Tensor):
            continue
        counterpart = layers[name]
        if not runs.get(counterpart):
            return failure(f"{name}: its counterpart {counterpart} is not run", name, len(large))
        place, large_output = runs[counterpart].pop(0)
        weight = weights_map.entries[f"{name}.weight"]
        mapped = at_base_channels(base.get_submodule(name), small_output, large_output, weight)
        if mapped is None:
            unjudged.append(name)
            continue
        layer_difference = relative_difference(small_output, mapped)
        if layer_difference > tolerance:
            settings = (
                differing_setting(base, motivated, at, layers[at]) for at in (last_layer, *unjudged, name) if at
            )
            cause = next(filter(None, settings), constant_factor(small_output, mapped, tolerance))
            problem = f"{name} in the base and {counterpart} in the motivated model differ by {layer_difference:.1e}"
            return failure(problem, name, place, cause)
        last_layer, last_place = name, place
        unjudged.clear()
    if difference > tolerance:
        return failure(problem, None, len(large))
    return Verification(True, difference, None, f"exact: greatest relative difference {difference:.1e}")


def compared_layers(weights_map: WeightsMap) -> dict[str, str]:
    """For each base module that owns a ``weight``, the module that owns its target."""
    return {
        name.rpartition(".")[0]: entry.target.rpartition(".")[0]
        for name, entry in weights_map.entries.items()
        if name.rpartition(".")[2] == "weight" and "." in name
    }
