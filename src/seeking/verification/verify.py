"""Prove that the base model is a sub-network of the motivated model."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import copied, copied_function, evaluating, scratch_copy, train_own_code
from seeking.errors import SeekingError
from seeking.forward import Forward, call
from seeking.matching.parts import COMPETITIONS, OVER_PARTS
from seeking.matching.tracer import Trace
from seeking.outside import outside_preserved
from seeking.supported import check_models
from seeking.verification.compare import at_base_channels, compare_outputs, relative_difference
from seeking.verification.constants import own_constants
from seeking.verification.decisions import Deciding, Decisions, differing_decision
from seeking.verification.diagnose import (
    constant_factor,
    differing_count,
    differing_setting,
    more_recurrent_layers,
    obstacle,
    own_constant,
)
from seeking.verification.extra import extra_modules
from seeking.verification.narrowing import DivergedError, Narrowed, Plan, narrowings
from seeking.verification.positions import Positions
from seeking.verification.recording import Records, dense, hooks, recording
from seeking.verification.running import output_of
from seeking.verification.shareable import check_parametrizations
from seeking.verification.views import (
    competition,
    computes_otherwise,
    differing_numbers,
    follow,
    in_mode,
    more_parts,
    traced,
    unreached,
)
from seeking.verification.weights import hold, multiplied, neutral_weights, promoted, random_weights
from seeking.weights_map import WeightsMap, is_real, tensors, tensors_in


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
        not_judged: tensors of the base that no forward pass reaches, in evaluation or in training mode.
    """

    exact: bool
    difference: float
    layer: str | None
    reason: str
    contained: bool = True
    not_judged: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.exact


SINGLE_TOLERANCE = 1e-5
"""Least tolerance where models compute in float32."""

LOUDER = 64.0
"""Weights and inputs are multiplied by so much to reach bounds, such as that of a ReLU6."""

REFUSES = "the motivated model refuses the input"


class _RefusedError(Exception):
    """The base does not run."""


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
        SeekingError: the map is not one of these models, the base refuses the input, there is NaN in it, or the
            tolerance is no finite number.
    """
    if not 0 <= tolerance < float("inf"):  # NaN would make everything exact.
        raise SeekingError(f"tolerance is {tolerance}; it must be a finite number, 0 or more")
    check_models(base, motivated)
    missing = tensors(base).keys() - weights_map.entries.keys()
    if missing:
        name = min(missing)
        return Verification(False, float("inf"), name.rpartition(".")[0], f"the map has no entry for {name}")
    weights_map.check(base, motivated)
    check_parametrizations(base, motivated, weights_map, extra=True)
    if any(tensor.is_meta for model in (base, motivated) for tensor in tensors(model).values()):
        raise SeekingError("a model is on the meta device; verify computes, so make both models with real weights")
    if any(is_real(tensor) and bool(tensor.isnan().any()) for tensor in tensors_in(batch)):
        raise SeekingError("there is NaN in the batch, on which nothing can be compared; give another batch")
    run = copied_function(forward) or call
    constants = own_constants(base, motivated, weights_map, batch, run)
    views = follow(base, motivated, batch, run)
    for training, (base_view, view) in views.items():
        problem = more_parts(base_view, view, COMPETITIONS) or (competition(weights_map, view) if view else "")
        if problem:
            return Verification(False, float("inf"), None, in_mode(problem, training), contained=False)
    verdict = Verification(False, float("inf"), None, "")
    for training, (base_view, view) in views.items():
        proof = _Proof(base, motivated, weights_map, batch, run, seed, training, base_view, view, constants)
        try:
            mode_verdict = proof.verdict(tolerance)
        except _RefusedError as error:
            if not training:
                raise SeekingError(f"the base model refuses the input: {error}") from error
            continue  # Such as one that asks for labels in training mode.
        if not mode_verdict:
            return dataclasses.replace(mode_verdict, reason=in_mode(mode_verdict.reason, training))
        verdict = mode_verdict if not training else max(verdict, mode_verdict, key=lambda v: v.difference)
    motivated_views = [view for _, view in views.values()]
    if not_judged := [name for name in unreached(weights_map, motivated_views) if name not in constants]:
        listed = ", ".join(not_judged[:3]) + (", …" if len(not_judged) > 3 else "")
        reason = f"{verdict.reason}; not judged, since no forward pass reaches them: {listed}"
        verdict = dataclasses.replace(verdict, reason=reason, not_judged=tuple(not_judged))
    return verdict


@dataclass(frozen=True)
class _Proof:
    """The comparison in one mode."""

    base: nn.Module
    motivated: nn.Module
    weights_map: WeightsMap
    batch: Any
    run: Forward
    seed: int
    training: bool
    base_view: Trace | None
    view: Trace | None
    constants: frozenset[str]
    times: float = 1.0

    def verdict(self, tolerance: float) -> Verification:
        """The verdict in float64 or, if models insist on less, in float32."""
        dtype = torch.float64
        try:
            verdict = self._compare(dtype, tolerance)
        except _RefusedError:
            verdict = None
        if verdict is None or verdict.reason.startswith(REFUSES):
            dtype, tolerance = torch.float32, max(tolerance, SINGLE_TOLERANCE)
            verdict = self._compare(dtype, tolerance)
        if verdict and self.times == 1 and computes_otherwise(self.base_view, self.view):
            louder = dataclasses.replace(self, batch=multiplied(self.batch, LOUDER), times=LOUDER)
            with suppress(_RefusedError):
                loud = louder._compare(dtype, tolerance)
                if not loud:
                    return dataclasses.replace(
                        loud, reason=f"with numbers that are {LOUDER:.0f} times as large, {loud.reason}"
                    )
        if self.constants and not verdict:
            # Would they agree if the motivated model had the base's?
            shared = dataclasses.replace(self, constants=frozenset())
            if shared.verdict(tolerance):
                reached = {
                    name
                    for name in self.constants
                    if self.view and self.weights_map.entries[name].target in self.view.axes
                }
                cause = own_constant(self.base, self.motivated, self.weights_map, reached or self.constants)
                return dataclasses.replace(verdict, reason=cause, contained=False)
        return verdict

    def _compare(self, dtype: torch.dtype, tolerance: float) -> Verification:
        own = {name: tensor for name, tensor in tensors(self.base).items() if name in self.constants}
        weights = promoted({**random_weights(self.base, self.seed, self.times), **copied(own)}, dtype)
        shared = {name: tensor for name, tensor in weights.items() if name not in own}
        layers = _counterparts(self.weights_map)
        extra = extra_modules(self.motivated, self.weights_map)
        small: Records = []
        decisions: tuple[Decisions, Decisions] = [], []
        base, motivated = scratch_copy(self.base), scratch_copy(self.motivated)

        def output(model: nn.Module, picked: list[int] | None, *modes: Any) -> tuple[Any, list[int] | None]:
            return output_of(model, self.batch, self.run, dtype, self.seed, *modes, picked=picked)

        def record(plan: Plan, scale: float, as_means: bool) -> Records:
            large: Records = []
            recorders = recording(large, layers.values()), recording(large, extra, with_input=True)
            neutral = promoted(neutral_weights(motivated, extra, scale), dtype)
            hold(motivated, self.weights_map.embed(shared, neutral))
            narrowed = Narrowed(self.view.reductions, plan, as_means=as_means) if self.view else nullcontext()
            decisions[1].clear()
            with hooks(motivated, *recorders):
                large.append(("", dense(output(motivated, picked, Deciding(decisions[1]), narrowed)[0])))
            return large

        with evaluating(base, motivated), outside_preserved(base, motivated):
            if self.training:
                train_own_code(base)
                train_own_code(motivated)
            try:
                hold(base, copied(weights))
                with hooks(base, recording(small, layers)):
                    result, picked = output(base, None, Deciding(decisions[0]))
                small.append(("", dense(result)))
                if self.times != 1 and not _finite(result):
                    raise OverflowError
            except Exception as error:
                raise _RefusedError(error) from error
            norms, others = self._plans()
            verdicts = []
            tries = itertools.product((0.0, 1.0), (False, True) if norms else (False,))
            for scale, as_means in tries:
                try:
                    large = record(norms, scale, as_means)
                except DivergedError:
                    return self._again_with_numbers(dtype, tolerance)
                except Exception as error:
                    return Verification(False, float("inf"), None, f"{REFUSES}: {error}", contained=False)
                verdicts.append(self._judged(small, large, tolerance, picked))
                if verdicts[-1].exact and (problem := differing_decision(*decisions, tolerance)):
                    verdicts[-1] = Verification(False, verdicts[-1].difference, None, problem)
                if verdicts[-1].exact:
                    return verdicts[-1]
            verdict = next((v for v in verdicts if v.contained), verdicts[0])
            if cause := more_parts(self.base_view, self.view, OVER_PARTS):
                problem = verdict.reason.partition(": ")[0]
                return dataclasses.replace(verdict, reason=f"{problem}: {cause}", contained=False)
            if others and verdict.contained and self.view:
                # With these over the base's channels alone, too, would they agree?
                large = record({**norms, **others}, 0.0, False)
                if self._judged(small, large, tolerance, picked).exact:
                    names = sorted({self.view.reductions[place].name for place in others})
                    cause = f"{', '.join(names)} over channels of which the base has only a part sees all of them"
                    verdict = dataclasses.replace(verdict, reason=f"{verdict.reason}: {cause}", contained=False)
            if verdict.contained and (hint := differing_numbers(self.base_view, self.view)):
                verdict = dataclasses.replace(verdict, reason=f"{verdict.reason}; {hint}")
            return verdict

    def _again_with_numbers(self, dtype: torch.dtype, tolerance: float) -> Verification:
        view = traced(self.motivated, self.batch, self.run, training=self.training, numbers=True)
        return dataclasses.replace(self, view=view)._compare(dtype, tolerance)

    @functools.cached_property
    def _positions(self) -> Positions:
        return Positions(self.weights_map, self.view.axes if self.view else {})

    def _plans(self) -> tuple[Plan, Plan]:
        return narrowings(self.view.reductions, self._positions) if self.view else ({}, {})

    def _judged(self, small: Records, large: Records, tolerance: float, picked: list[int] | None) -> Verification:
        channels: list[list[list[int] | None]] = []
        if self.view:
            channels = [[self._positions.left_out(axis) for axis in axes] for axes in self.view.outputs]
            if picked and picked[-1] < len(channels):
                channels = [channels[place] for place in picked]
        return _judge(self.base, self.motivated, self.weights_map, small, large, tolerance, channels)


def _judge(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    small: Records,
    large: Records,
    tolerance: float,
    channels: Sequence[Sequence[list[int] | None]],
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
        # What another part of the model computes may have come in by another way.
        cause = cause or obstacle(motivated, [record for record in large[:end] if record[0] in extra], tolerance)
        cause = cause or differing_count(layers, [name for name, _ in small], [name for name, _ in large])
        cause = cause or more_recurrent_layers(base, motivated, weights_map)
        reason = f"{problem}: {cause}" if cause else problem
        if not cause and _has_nan(large[-1][1]) and not _has_nan(small[-1][1]):
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


def _finite(output: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors_in(output) if is_real(tensor))


def _has_nan(output: Any) -> bool:
    return any(bool(tensor.isnan().any()) for tensor in tensors_in(output) if is_real(tensor))


def _counterparts(weights_map: WeightsMap) -> dict[str, str]:
    """For each base module that owns a ``weight``, the module that owns its target."""
    return {
        name.rpartition(".")[0]: entry.target.rpartition(".")[0]
        for name, entry in weights_map.entries.items()
        if name.rpartition(".")[2] == "weight" and "." in name
    }
