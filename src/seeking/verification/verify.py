"""Prove that the base model is a sub-network of the motivated model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from seeking.copies import stateless
from seeking.errors import SeekingError
from seeking.forward import Forward, call
from seeking.matching.parts import COMPETITIONS, OF_INTEGERS
from seeking.supported import check_map, check_models, cure_of_meta
from seeking.verification.comparison import RefusedError, Subject
from seeking.verification.constants import own_constants
from seeking.verification.proof import prove
from seeking.verification.shareable import check_parametrizations
from seeking.verification.unreached import unreached_settings
from seeking.verification.verdict import Verification
from seeking.verification.views import competition, differing_numbers, follow, in_mode, more_parts, unreached
from seeking.weights_map import WeightsMap, has_nan, tensors, tensors_in


def verify(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    batch: Any,
    *,
    forward: Forward | None = None,
    tolerance: float = 1e-9,
    seed: int = 0,
) -> Verification:
    """Compare the base with the motivated model that holds the base's weights and no other.

    The outputs are compared and, layer by layer, what lies before them: a deep network of random weights may put out
    nearly the same whatever its input. Both models get the same random weights, so that no fresh initialization
    (scales of one, biases of zero) hides an error; the extra parameters are set to zero, which makes extra input
    channels contribute nothing and extra residual blocks the identity. Where the motivated model divides channels by
    a statistic of them, or centers them, as norms do, it takes the statistic over the base's channels alone, and
    computes on by itself. Where they decide (a threshold, rounding, a choice), the numbers that they decide by are
    compared, too. The models run in evaluation mode and, where their own code does something else there, in
    training mode, without dropout. They run in float64, so that constants such as a norm's ``eps`` show, in float32 if
    they insist on it, and are left as they were. What the batch does not reach, such as rows of an embedding that it
    does not name, is not compared. Buffers that training does not change, and of which the two models have other values
    (``1 / width``), are not shared: each model computes with its own, as in training.

    Args:
        base: the smaller model.
        motivated: the larger model.
        weights_map: the map to be proven.
        batch: one input, as ``forward`` takes it.
        forward: runs a model on the batch. The default calls ``model(batch)``, ``model(*batch)`` for a tuple or
            list, ``model(**batch)`` for a mapping. Of several outputs, those are judged that it uses.
        tolerance: greatest relative difference that counts as exact; in float32, 1e-5 at least.
        seed: of the random weights.

    Raises:
        SeekingError: the map is not one of these models, the base refuses the input, it is empty or has NaN, or the
            tolerance is no finite number.
    """
    if not 0 <= tolerance < float("inf"):  # NaN would make everything exact.
        raise SeekingError(f"tolerance is {tolerance}; it must be a finite number, 0 or more")
    check_models(base, motivated)
    check_map(weights_map)
    missing = tensors(base).keys() - weights_map.entries.keys()
    if missing:
        name = min(missing)
        return Verification(False, float("inf"), name.rpartition(".")[0], f"the map has no entry for {name}")
    weights_map.check(base, motivated)
    check_parametrizations(base, motivated, weights_map, extra=True)
    _check_numbers({"base": base, "motivated model": motivated}, batch)
    run = stateless(forward) or call
    constants = own_constants(base, motivated, weights_map, batch, forward)
    views = follow(base, motivated, batch, run)
    for training, (base_view, view) in views.items():
        problem = more_parts(base_view, view, COMPETITIONS) or (competition(weights_map, view) if view else "")
        if problem:
            return Verification(False, float("inf"), None, in_mode(problem, training), contained=False)
    verdict = Verification(False, float("inf"), None, "")
    for training, (base_view, view) in views.items():
        subject = Subject(base, motivated, weights_map, batch, run, seed, training, base_view, view, constants)
        try:
            mode_verdict = prove(subject, tolerance)
        except RefusedError as error:
            if not training:
                raise SeekingError(f"the base model refuses the input: {error}") from error
            continue  # Such as one that asks for labels in training mode.
        if not mode_verdict:
            return dataclasses.replace(mode_verdict, reason=in_mode(mode_verdict.reason, training))
        if number := differing_numbers(base_view, view, OF_INTEGERS):
            reason = in_mode(f"{number}, though on this batch both compute the same", training)
            return Verification(False, mode_verdict.difference, None, reason, contained=False)
        verdict = mode_verdict if not training else max(verdict, mode_verdict, key=lambda v: v.difference)
    motivated_views = [view for _, view in views.values()]
    not_judged = tuple(name for name in unreached(weights_map, motivated_views) if name not in constants)
    settings = unreached_settings(base, motivated, weights_map, batch, run, views)
    reason = verdict.reason + _listed("not judged, since no forward pass reaches them", not_judged)
    reason += _listed("not judged, since the batch does not reach them", settings)
    return dataclasses.replace(verdict, reason=reason, not_judged=not_judged, settings_not_judged=settings)


def _check_numbers(models: Mapping[str, nn.Module], batch: Any) -> None:
    """Make sure that there are numbers to compute with."""
    for role, model in models.items():
        if any(tensor.is_meta for tensor in tensors(model).values()):
            raise SeekingError(f"the {role} is on the meta device, where nothing is computed; {cure_of_meta(model)}")
    inputs = tensors_in(batch)
    if any(tensor.is_meta for tensor in inputs):
        raise SeekingError("the batch is on the meta device; verify computes, so give one with numbers")
    if inputs and not any(tensor.numel() for tensor in inputs):
        raise SeekingError("there is no sample in the batch, so nothing would be compared; give another batch")
    if has_nan(inputs):
        raise SeekingError("there is NaN in the batch, on which nothing can be compared; give another batch")


def _listed(what: str, names: tuple[str, ...]) -> str:
    return f"; {what}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}" if names else ""
