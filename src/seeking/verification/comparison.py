"""Run copies of two models in one precision and compare what they put out."""

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seeking.copies import copied, inspecting, random_state_preserved, scratch_copy, train_own_code
from seeking.errors import SeekingError
from seeking.forward import Forward
from seeking.matching.parts import OVER_PARTS
from seeking.matching.tracer import Trace
from seeking.outside import outside_preserved
from seeking.verification.decisions import Decisions, deciding, differing_decision
from seeking.verification.extra import extra_modules
from seeking.verification.judge import Judge, compared_layers
from seeking.verification.narrowing import DivergedError, OutvotedError
from seeking.verification.originals import UsesOf, check_unused
from seeking.verification.recording import Records, dense, hooks, recording
from seeking.verification.remembered import run_once
from seeking.verification.running import Defined, InPrecision, Picked, in_dtype, output_of
from seeking.verification.sight import Sight
from seeking.verification.verdict import Verification
from seeking.verification.views import differing_numbers, more_parts, traced
from seeking.verification.weights import hold, neutral_weights, promoted, random_weights
from seeking.weights_map import WeightsMap, has_nan, is_real, tensors, tensors_in

REFUSES = "the motivated model refuses the input"


class RefusedError(Exception):
    """The base does not run."""


class _NotRunError(Exception):
    """The motivated model does not run, or not as it was traced."""


@dataclass(frozen=True)
class Subject:
    """What is compared: two models in one mode, on a batch.

    Attributes:
        base: the smaller model.
        motivated: the larger model.
        weights_map: to be proven.
        batch: one input, as ``run`` takes it.
        run: runs a model on the batch.
        seed: of the random weights.
        training: whether modules run their own code of training mode.
        base_view: a trace of the base; None if it cannot be traced.
        view: a trace of the motivated model, likewise.
        constants: names of the base's buffers of which each model keeps its own values.
        times: factor of the base's random weights.
        has_run: whether both models have run on the batch before, with their own weights and in their own precision.
    """

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
    has_run: bool = False


class Comparison:
    """The base's pass, with random weights, and passes of the motivated model that holds them."""

    def __init__(self, subject: Subject, dtype: torch.dtype, tolerance: float) -> None:
        self._subject, self._dtype, self._tolerance = subject, dtype, tolerance
        self._base, self._motivated = scratch_copy(subject.base), scratch_copy(subject.motivated)
        own = {name: tensor for name, tensor in tensors(subject.base).items() if name in subject.constants}
        random = random_weights(subject.base, subject.seed, subject.times)
        self._weights = promoted({**random, **copied(own)}, dtype)
        self._shared = {name: tensor for name, tensor in self._weights.items() if name not in own}
        self._layers = compared_layers(subject.weights_map)
        self._extra = extra_modules(subject.motivated, subject.weights_map)
        self._sight = Sight(subject.view, subject.weights_map)
        self._small: Records = []
        self._picked: Picked | None = None
        self._base_decisions: Decisions = []
        self._decisions: Decisions = []

    def verdict(self) -> Verification:
        """Run both models.

        Raises:
            RefusedError: the base does not run, or puts out numbers that are not finite where it is ``times`` as loud.
        """
        models = self._base, self._motivated
        with inspecting(*models), outside_preserved(*models):
            if self._subject.training:
                for model in models:
                    train_own_code(model)
            if self._subject.has_run:
                for model in models:
                    run_once(model, self._subject.batch, self._subject.run, self._subject.seed)
            self._run_base()
            try:
                verdict = self._with_some_extra_weights()
                return verdict if verdict.exact else self._explained(verdict)
            except _NotRunError as error:
                return Verification(False, float("inf"), None, str(error), contained=False)

    def _run_base(self) -> None:
        try:
            hold(self._base, copied(self._weights))
            with hooks(self._base, recording(self._small, self._layers)):
                output, self._picked = self._output(self._base, None, deciding(self._base_decisions))
        except Exception as error:
            self._check_that_it_refuses(self._base, error)
            raise RefusedError(str(error) or type(error).__name__) from error
        if self._subject.times != 1 and not _finite(output):
            raise RefusedError("numbers that are not finite")
        self._small.append(("", output))
        _check_content(self._small)

    def _with_some_extra_weights(self) -> Verification:
        """The first exact verdict over the kinds of neutral extra weights; otherwise the one that tells most."""
        verdicts = []
        undefined = False
        for scale, as_means in ((0.0, False), (0.0, True), (1.0, False), (1.0, True)):
            if as_means and not self._sight.norms:
                continue
            large = self._run_motivated(scale, as_means)
            verdict = self._verdict(large)
            undefined |= has_nan(large) and not has_nan(self._small)
            if verdict.exact and (problem := self._differing_decision()):
                verdict = Verification(False, verdict.difference, None, problem)
            if verdict.exact:
                return verdict
            verdicts.append(verdict)
        if undefined and (defined := self._where_undefined()):
            return defined
        return next((verdict for verdict in verdicts if verdict.contained), verdicts[0])

    def _where_undefined(self) -> Verification | None:
        """The verdict if extra weights that are not quite zero, which would have given numbers, make no difference."""
        for as_means in (False, True) if self._sight.norms else (False,):
            verdicts = [self._verdict(self._run_motivated(0.0, as_means, Defined(number))) for number in (1.0, -0.375)]
            if all(verdicts) and not self._differing_decision():
                return verdicts[0]
        return None

    def _explained(self, verdict: Verification) -> Verification:
        """A verdict that is not exact, with the cause where it can be told.

        Raises:
            SeekingError: the models can only be run together with their copies.
        """
        for model, copy in ((self._subject.base, self._base), (self._subject.motivated, self._motivated)):
            uses = UsesOf(model)
            with contextlib.suppress(Exception):
                self._output(copy, self._picked, uses)
            check_unused(model, uses)
        base_view, view = self._subject.base_view, self._subject.view
        if cause := more_parts(base_view, view, OVER_PARTS):
            problem = verdict.reason.partition(": ")[0]
            return dataclasses.replace(verdict, reason=f"{problem}: {cause}", contained=False)
        # With these over the base's channels alone, too, would they agree?
        if self._sight.others and verdict.contained and self._agrees_without_others():
            names = ", ".join(self._sight.others)
            cause = f"{names} over channels of which the base has only a part sees all of them"
            verdict = dataclasses.replace(verdict, reason=f"{verdict.reason}: {cause}", contained=False)
        if verdict.contained and (hint := differing_numbers(base_view, view)):
            verdict = dataclasses.replace(verdict, reason=f"{verdict.reason}; {hint}, which may be why")
        return verdict

    def _agrees_without_others(self) -> bool:
        return self._verdict(self._run_motivated(0.0, as_means=False, others=True)).exact

    def _run_motivated(self, scale: float, as_means: bool, *modes: Any, others: bool = False) -> Records:
        """What the motivated model puts out with neutral extra weights.

        If what it computes depends on numbers, it is traced anew in that very pass.
        """
        neutral = promoted(neutral_weights(self._motivated, self._extra, scale), self._dtype)
        hold(self._motivated, self._subject.weights_map.embed(self._shared, neutral))
        try:
            with contextlib.suppress(DivergedError):
                return self._recorded(as_means, others, True, *modes)
            if view := self._traced_with_numbers():
                self._sight = Sight(view, self._subject.weights_map)
            return self._recorded(as_means, others, False, *modes)
        except (DivergedError, OutvotedError) as error:
            raise _NotRunError(str(error) or "the motivated model reduces other tensors whenever it runs") from error
        except Exception as error:
            self._check_that_it_refuses(self._motivated, error)
            raise _NotRunError(f"{REFUSES}: {str(error) or type(error).__name__}") from error

    def _check_that_it_refuses(self, model: nn.Module, error: Exception) -> None:
        """Make sure that a model fails by itself, too, where nothing follows what it computes."""
        try:
            self._output(model, self._picked)
        except Exception:
            return
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SeekingError(
            f"{type(model).__name__} runs, but cannot be followed: {problem}; this is an error "
            "of seeking, please report it"
        ) from error

    def _recorded(self, as_means: bool, others: bool, strict: bool, *modes: Any) -> Records:
        large: Records = []
        recorders = recording(large, self._layers.values()), recording(large, self._extra, with_input=True)
        narrowed = self._sight.narrowed(as_means=as_means, others=others, strict=strict)
        self._decisions.clear()
        with hooks(self._motivated, *recorders):
            output, _ = self._output(
                self._motivated, self._picked, *modes, narrowed, self._sight.deciding(self._decisions)
            )
        large.append(("", output))
        narrowed.finish()
        return large

    def _output(self, model: nn.Module, picked: Picked | None, *modes: Any) -> tuple[Any, Picked | None]:
        subject = self._subject
        output, picked = output_of(model, subject.batch, subject.run, self._dtype, subject.seed, *modes, picked=picked)
        return dense(output), picked

    def _verdict(self, large: Records) -> Verification:
        subject = self._subject
        channels = self._sight.channels(self._picked)
        models = subject.base, subject.motivated
        return Judge(*models, subject.weights_map, self._small, large, self._tolerance).verdict(channels)

    def _differing_decision(self) -> str:
        return differing_decision(self._base_decisions, self._decisions, self._tolerance)

    def _traced_with_numbers(self) -> Trace | None:
        """A trace of the copy with the weights that it holds."""

        def run(model: nn.Module, batch: Any) -> Any:
            with InPrecision(self._dtype):
                return self._subject.run(model, batch)

        with in_dtype(self._dtype), random_state_preserved(self._subject.seed):
            batch = promoted(self._subject.batch, self._dtype)
            return traced(self._motivated, batch, run, training=self._subject.training, numbers=True)


def _check_content(records: Records) -> None:
    """Make sure that there is something to compare.

    Raises:
        SeekingError: the output, or that of each layer, is empty, or no number in the output is finite.
    """
    layers, output = ([t for t in tensors_in(part) if is_real(t)] for part in (records[:-1], records[-1][1]))
    held = [any(tensor.numel() for tensor in part) for part in (layers, output)]
    has_head = all(tensor.numel() for tensor in layers)  # One of no classes puts out nothing.
    if (layers and not held[0]) or (output and not held[1] and has_head):
        what = "the batch holds no samples, or the base puts out tensors without elements"
    elif held[1] and not any(bool(tensor.isfinite().any()) for tensor in output):
        what = "no number that the base puts out is finite"
    else:
        return
    raise SeekingError(f"nothing was compared: {what}; give another batch, or a forward that returns other outputs")


def _finite(output: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors_in(output) if is_real(tensor))
