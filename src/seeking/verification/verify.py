"""Prove that the base model is a sub-network of the motivated model."""

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import copied, evaluating, random_state_preserved, scratch_copy
from seeking.errors import SeekingError
from seeking.forward import Forward, call
from seeking.supported import check_models
from seeking.verification.compare import at_base_channels, compare_outputs, relative_difference
from seeking.verification.diagnose import constant_factor, differing_setting, obstacle
from seeking.verification.extra import extra_modules
from seeking.verification.norms import narrowed_norms
from seeking.verification.recording import Records, hooks, recording
from seeking.verification.shareable import check_parametrizations
from seeking.verification.weights import hold, neutral_weights, promoted, random_weights
from seeking.weights_map import WeightsMap, tensors


@dataclass(frozen=True)
class Verification:
    """The verdict of ``verify``; true if the map is exact.

    Attributes:
        exact: whether the motivated model, holding the base and nothing else, computes the base's function, layer by
            layer.
        difference: greatest difference of the outputs, relative to the base's greatest output.
        layer: the first layer of the base, in the order of the forward pass, at which the two differ.
        reason: one sentence.
        contained: False where no map between these two models can be exact: what differs is not which weights are
            shared, but something that the motivated model does besides.
    """

    exact: bool
    difference: float
    layer: str | None
    reason: str
    contained: bool = True

    def __bool__(self) -> bool:
        return self.exact


def verify(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    batch: Any,
    *,
    forward: Forward | None = None,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> Verification:
    """Compare the base with the motivated model that holds the base's weights and no other.

    The outputs are compared and, layer by layer, what lies before them: a deep network of random weights may put out
    nearly the same whatever its input. Both models get the same random weights, so that no fresh initialization
    (scales of one, biases of zero) hides an error; the extra capacity is set to zero, which makes extra input
    channels contribute nothing and extra residual blocks the identity. Norms over the channels of one position
    (LayerNorm, RMSNorm, GroupNorm) that are wider in the motivated model take their statistics over the base's
    channels alone. The models run in evaluation mode, in float32 at least and, where that shows a difference, in
    float64, and are left as they were. What the batch does not reach, such as rows of an embedding that it does not
    name, is not compared.

    Args:
        base: the smaller model.
        motivated: the larger model.
        weights_map: the map to be proven.
        batch: one input, as ``forward`` takes it.
        forward: runs a model on the batch. The default calls ``model(batch)``, ``model(*batch)`` for a tuple or
            list, ``model(**batch)`` for a mapping.
        tolerance: greatest relative difference that counts as exact.
        seed: of the random weights.

    Raises:
        SeekingError: the map is not one of these models, or the base refuses the input.
    """
    check_models(base, motivated)
    missing = tensors(base).keys() - weights_map.entries.keys()
    if missing:
        name = min(missing)
        return Verification(False, float("inf"), name.rpartition(".")[0], f"the map has no entry for {name}")
    weights_map.check(base, motivated)
    check_parametrizations(base, motivated, weights_map, extra=True)
    if any(tensor.is_meta for model in (base, motivated) for tensor in tensors(model).values()):
        raise SeekingError("a model is on the meta device; verify computes, so make both models with real weights")
    run = forward or call
    verdict = _compare(base, motivated, weights_map, batch, run, tolerance, seed, torch.float32)
    if not verdict:
        # Rounding may be all that differs. Some models insist on float32.
        with contextlib.suppress(Exception):
            return _compare(base, motivated, weights_map, batch, run, tolerance, seed, torch.float64)
    return verdict


def _compare(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    batch: Any,
    run: Forward,
    tolerance: float,
    seed: int,
    dtype: torch.dtype,
) -> Verification:
    weights = promoted(random_weights(base, seed), dtype)

    def output(model: nn.Module) -> Any:
        # A forward may write into its batch, or drop out in evaluation mode: both models get a copy and the same noise.
        with random_state_preserved(seed):
            return run(model, copied(promoted(batch, dtype)))

    layers = _counterparts(weights_map)
    extra = extra_modules(motivated, weights_map)
    small: Records = []
    base, motivated = scratch_copy(base), scratch_copy(motivated)
    with evaluating(base, motivated):
        hold(base, copied(weights))
        with hooks(base, recording(small, ["", *layers])):
            try:
                small.append(("", output(base)))
            except Exception as error:
                raise SeekingError(f"the base model refuses the input: {error}") from error
        norms = narrowed_norms(base, weights_map, small)
        verdicts = []
        for scale in (0.0, 1.0):
            large: Records = []
            held = weights_map.embed(weights, promoted(neutral_weights(motivated, extra, scale), dtype))
            recorders = recording(large, ["", *layers.values()]), recording(large, extra, with_input=True)
            hold(motivated, held)
            with hooks(motivated, norms, *recorders):
                try:
                    large.append(("", output(motivated)))
                except Exception as error:
                    reason = f"the motivated model refuses the input: {error}"
                    return Verification(False, float("inf"), None, reason, contained=False)
            verdicts.append(_judge(base, motivated, weights_map, small, large, tolerance))
            if verdicts[-1].exact or verdicts[-1].contained:
                return verdicts[-1]
    return verdicts[0]


def _judge(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, small: Records, large: Records, tolerance: float
) -> Verification:
    """Compare what was recorded, layer by layer and at the end."""
    layers = _counterparts(weights_map)
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
        reason = f"{problem}: {cause}" if cause else problem
        return Verification(False, difference, layer, reason, contained=not cause)

    # A custom forward may return less than the model puts out, such as a loss: the first record of the root is judged.
    outputs = (next(output for name, output in records if not name) for records in (small, large))
    difference, problem = compare_outputs(*outputs)
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
            continue
        layer_difference = relative_difference(small_output, mapped)
        if layer_difference > tolerance:
            settings = (differing_setting(base, motivated, at, layers[at]) for at in (last_layer, name) if at)
            cause = next(filter(None, settings), constant_factor(small_output, mapped, tolerance))
            problem = f"{name} in the base and {counterpart} in the motivated model differ by {layer_difference:.1e}"
            return failure(problem, name, place, cause)
        last_layer, last_place = name, place
    if difference > tolerance:
        return failure(problem, None, len(large))
    return Verification(True, difference, None, f"exact: greatest relative difference {difference:.1e}")


def _counterparts(weights_map: WeightsMap) -> dict[str, str]:
    """For each base module that owns a ``weight``, the module that owns its target."""
    return {
        name.rpartition(".")[0]: entry.target.rpartition(".")[0]
        for name, entry in weights_map.entries.items()
        if name.rpartition(".")[2] == "weight" and "." in name
    }
