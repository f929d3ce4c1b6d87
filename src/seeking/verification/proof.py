"""The comparison of two models in one mode."""

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seeking.copies import copied, evaluating, random_state_preserved, scratch_copy, train_own_code
from seeking.forward import Forward
from seeking.matching.parts import OVER_PARTS
from seeking.matching.tracer import Trace
from seeking.outside import outside_preserved
from seeking.verification.compare import Channels
from seeking.verification.decisions import Deciding, Decisions, differing_decision
from seeking.verification.diagnose import own_constant
from seeking.verification.extra import extra_modules
from seeking.verification.judge import counterparts, has_nan, judge
from seeking.verification.narrowing import DivergedError, OutvotedError
from seeking.verification.recording import Records, dense, hooks, recording
from seeking.verification.running import Defined, InPrecision, in_dtype, output_of
from seeking.verification.sight import Sight
from seeking.verification.verdict import Verification
from seeking.verification.views import computes_otherwise, decides, differing_numbers, more_parts, traced
from seeking.verification.weights import hold, multiplied, neutral_weights, promoted, random_weights
from seeking.weights_map import WeightsMap, is_real, tensors, tensors_in

SINGLE_TOLERANCE = 1e-5
"""Least tolerance where models compute in float32."""

LOUDER = 64.0
"""Weights and inputs are multiplied by so much to reach bounds, such as that of a ReLU6, or other branches."""

LOUD_TOLERANCE = 1e-6
"""Least tolerance there, where rounding is a greater part of what large numbers cancel to."""

REFUSES = "the motivated model refuses the input"


class RefusedError(Exception):
    """The base does not run."""


@dataclass(frozen=True)
class Proof:
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
        except RefusedError:
            verdict = None
        if verdict is None or verdict.reason.startswith(REFUSES):
            dtype, tolerance = torch.float32, max(tolerance, SINGLE_TOLERANCE)
            verdict = self._compare(dtype, tolerance)
        for times, size in self._other_sizes() if verdict else ():
            other = dataclasses.replace(self, batch=multiplied(self.batch, times), times=times)
            with contextlib.suppress(RefusedError):
                compared = other._compare(dtype, max(tolerance, LOUD_TOLERANCE))
                if not compared:
                    reason = f"with numbers that are {LOUDER:.0f} times as {size}, {compared.reason}"
                    return dataclasses.replace(compared, reason=reason)
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

    def _other_sizes(self) -> list[tuple[float, str]]:
        """The sizes of numbers, other than the batch's, for which the models may compute something else."""
        views = self.base_view, self.view
        if any(map(decides, views)):
            return [(LOUDER, "large"), (1 / LOUDER, "small")]
        return [(LOUDER, "large")] if computes_otherwise(*views) else []

    def _compare(self, dtype: torch.dtype, tolerance: float) -> Verification:
        own = {name: tensor for name, tensor in tensors(self.base).items() if name in self.constants}
        weights = promoted({**random_weights(self.base, self.seed, self.times), **copied(own)}, dtype)
        shared = {name: tensor for name, tensor in weights.items() if name not in own}
        layers = counterparts(self.weights_map)
        extra = extra_modules(self.motivated, self.weights_map)
        small: Records = []
        decisions: tuple[Decisions, Decisions] = [], []
        base, motivated = scratch_copy(self.base), scratch_copy(self.motivated)

        def output(model: nn.Module, picked: list[int] | None, *modes: Any) -> tuple[Any, list[int] | None]:
            return output_of(model, self.batch, self.run, dtype, self.seed, *modes, picked=picked)

        def record(sight: Sight, as_means: bool, others: bool, strict: bool, *modes: Any) -> Records:
            large: Records = []
            recorders = recording(large, layers.values()), recording(large, extra, with_input=True)
            narrowed = sight.narrowed(as_means=as_means, others=others, strict=strict)
            decisions[1].clear()
            with hooks(motivated, *recorders):
                large.append(("", dense(output(motivated, picked, *modes, Deciding(decisions[1]), narrowed)[0])))
            narrowed.finish()
            return large

        def seen(
            sight: Sight, scale: float, as_means: bool, *modes: Any, others: bool = False
        ) -> tuple[Records, Sight]:
            """What the motivated model puts out, and a trace of that very pass if it depends on numbers."""
            neutral = promoted(neutral_weights(motivated, extra, scale), dtype)
            hold(motivated, self.weights_map.embed(shared, neutral))
            with contextlib.suppress(DivergedError):
                return record(sight, as_means, others, True, *modes), sight
            if view := self._traced_with_numbers(motivated, dtype):
                sight = Sight(view, self.weights_map)
            return record(sight, as_means, others, False, *modes), sight

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
                raise RefusedError(error) from error
            sight = Sight(self.view, self.weights_map)
            verdicts = []
            undefined = False
            for scale, as_means in ((0.0, False), (0.0, True), (1.0, False), (1.0, True)):
                if as_means and not sight.norms:
                    continue
                try:
                    large, sight = seen(sight, scale, as_means)
                except (DivergedError, OutvotedError) as error:
                    reason = str(error) or "the motivated model reduces other tensors whenever it runs"
                    return Verification(False, float("inf"), None, reason, contained=False)
                except Exception as error:
                    return Verification(False, float("inf"), None, f"{REFUSES}: {error}", contained=False)
                verdicts.append(self._judged(small, large, tolerance, sight.channels(picked)))
                undefined |= has_nan(large) and not has_nan(small)
                if verdicts[-1].exact and (problem := differing_decision(*decisions, tolerance)):
                    verdicts[-1] = Verification(False, verdicts[-1].difference, None, problem)
                if verdicts[-1].exact:
                    return verdicts[-1]
            verdict = next((v for v in verdicts if v.contained), verdicts[0])
            if undefined:
                # Extra weights that are not quite zero would have given numbers, whichever.
                for as_means in (False, True) if sight.norms else (False,):
                    records = [seen(sight, 0.0, as_means, Defined(number))[0] for number in (1.0, -0.375)]
                    defined = [self._judged(small, each, tolerance, sight.channels(picked)) for each in records]
                    if all(defined) and not differing_decision(*decisions, tolerance):
                        return defined[0]
            if cause := more_parts(self.base_view, self.view, OVER_PARTS):
                problem = verdict.reason.partition(": ")[0]
                return dataclasses.replace(verdict, reason=f"{problem}: {cause}", contained=False)
            if sight.others and verdict.contained:
                # With these over the base's channels alone, too, would they agree?
                large, sight = seen(sight, 0.0, as_means=False, others=True)
                if self._judged(small, large, tolerance, sight.channels(picked)).exact:
                    names = ", ".join(sight.others)
                    cause = f"{names} over channels of which the base has only a part sees all of them"
                    verdict = dataclasses.replace(verdict, reason=f"{verdict.reason}: {cause}", contained=False)
            if verdict.contained and (hint := differing_numbers(self.base_view, self.view)):
                verdict = dataclasses.replace(verdict, reason=f"{verdict.reason}; {hint}")
            return verdict

    def _judged(self, small: Records, large: Records, tolerance: float, channels: Channels) -> Verification:
        return judge(self.base, self.motivated, self.weights_map, small, large, tolerance, channels)

    def _traced_with_numbers(self, motivated: nn.Module, dtype: torch.dtype) -> Trace | None:
        """A trace of the copy with the weights that it holds."""

        def run(model: nn.Module, batch: Any) -> Any:
            with InPrecision(dtype):
                return self.run(model, batch)

        with in_dtype(dtype), random_state_preserved(self.seed):
            return traced(motivated, promoted(self.batch, dtype), run, training=self.training, numbers=True)


def _finite(output: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors_in(output) if is_real(tensor))
