"""The axes of both models' tensors: from custom rules, from a trace of each model, else from built-in rules."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seeking.errors import SeekingError
from seeking.forward import Forward, call
from seeking.matching.axes import Axis, Space, free
from seeking.matching.example_inputs import example_inputs
from seeking.matching.module_rules import BUILT_IN, RULES, Dimension, Rule, default_dimensions, factors_of
from seeking.matching.tracer import Trace, UntraceableError, trace
from seeking.weights_map import tensors, tensors_in

BY_NAME = "name"
"""Origin of axes of models that could not be traced, and for which there is no rule."""

UNREACHED = "not reached"
"""Origin of axes of tensors that no forward pass reaches, so that any part of them does."""


class ModelAxes:
    """What the dimensions of the base's and of the motivated model's tensors are made of.

    Args:
        base: the smaller model.
        motivated: the larger model.
        batch: one input, as ``forward`` takes it; if None, example inputs are tried.
        forward: runs a model on the batch.
        numbers: run the models with their numbers.

    Attributes:
        origin: what the axes of each tensor of the motivated model are known from.
        untraceable: why the models could not be traced; empty if they were.
        assumed: operations of either model that were only assumed to be elementwise, with the axes of their inputs
            in the motivated model; none where the base alone has them.
        example_shape: shape of the input that was made where the first layer told no more than its features, else
            empty.
    """

    def __init__(
        self, base: nn.Module, motivated: nn.Module, batch: Any, forward: Forward | None, *, numbers: bool = False
    ) -> None:
        self._numbers = numbers
        self._models = base, motivated
        self._tensors = tensors(base), tensors(motivated)
        self._axes: tuple[dict[str, list[Axis]], dict[str, list[Axis]]] = {}, {}
        self.origin = dict.fromkeys(self._tensors[1], "structure")
        self.assumed: Mapping[str, list[Axis]] = {}
        self.example_shape: list[int] = []
        self._apply(RULES)
        self.untraceable = self._trace(batch, forward)
        if self.untraceable:
            self._apply(BUILT_IN)

    def base(self, name: str) -> list[Axis]:
        """An axis for each dimension of a tensor of the base."""
        return self._read(0, name)

    def motivated(self, name: str) -> list[Axis]:
        """An axis for each dimension of a tensor of the motivated model."""
        return self._read(1, name)

    def _apply(self, rules: Sequence[Rule]) -> None:
        for side, model in enumerate(self._models):
            for name, (rule, axes) in axes_by_rule(model, rules).items():
                if name not in self._axes[side]:
                    self._axes[side][name] = axes
                    if side:
                        self.origin[name] = f"rule: {rule}"

    def _trace(self, batch: Any, forward: Forward | None) -> str:
        if any(tensor.is_nested and tensor.layout == torch.strided for tensor in tensors_in(batch)):
            raise SeekingError("nested tensors of the strided layout have no sizes; make them with layout=torch.jagged")
        reason = "no example input could be made for it; give match a batch"
        for example in [batch] if batch is not None else example_inputs(self._models[0]):
            try:
                traces = self._traces(example, forward)
                free_heads = _scaled_alike(*traces)
                if free_heads:
                    traces = self._traces(example, forward, free_heads=True)
            except UntraceableError as error:
                reason = str(error)
                continue
            for axes, model_trace in zip(self._axes, traces, strict=True):
                axes.update(model_trace.axes)
            self.assumed = traces[1].assumed
            if batch is None and isinstance(example, Tensor) and example.ndim < 4:
                self.example_shape = list(example.shape)
            self._trace_training(example, forward, traces, free_heads)
            return ""
        return reason

    def _traces(self, batch: Any, forward: Forward | None, *, free_heads: bool = False) -> list[Trace]:
        return [
            trace(model, batch, forward or call, axes, numbers=self._numbers, free_heads=free_heads)
            for model, axes in zip(self._models, self._axes, strict=True)
        ]

    def _trace_training(self, batch: Any, forward: Forward | None, traces: Sequence[Trace], free_heads: bool) -> None:
        """Trace in training mode, too, if evaluation leaves tensors out, such as those of a head for training alone."""
        left_out = [own.keys() - axes.keys() for own, axes in zip(self._tensors, self._axes, strict=True)]
        # Numbers have no axes, such as the counts of batches of norms, which no trace reaches.
        if not any(own[name].ndim for own, names in zip(self._tensors, left_out, strict=True) for name in names):
            return
        with contextlib.suppress(UntraceableError):
            again = [
                trace(
                    model,
                    batch,
                    forward or call,
                    before=before,
                    training=True,
                    numbers=self._numbers,
                    free_heads=free_heads,
                )
                for model, before in zip(self._models, traces, strict=True)
            ]
            for axes, model_trace in zip(self._axes, again, strict=True):
                axes.update(model_trace.axes)

    def _read(self, side: int, name: str) -> list[Axis]:
        if name not in self._axes[side]:
            tensor = self._tensors[side][name]
            if self.untraceable:
                axes = [_axis(dimension) for dimension in default_dimensions(tensor)]
            else:
                axes = [free(size) for size in tensor.shape]
            self._axes[side][name] = axes
            if side:
                self.origin[name] = BY_NAME if self.untraceable else UNREACHED
        return self._axes[side][name]


def _scaled_alike(base: Trace, motivated: Trace) -> bool:
    """Whether attention scales by the same constants in both models, though their heads are of different sizes."""
    unknown = any(map(math.isnan, base.scales | motivated.scales))
    return base.heads != motivated.heads and base.scales == motivated.scales and not unknown


def axes_by_rule(model: nn.Module, rules: Sequence[Rule]) -> dict[str, tuple[str, list[Axis]]]:
    """For each tensor that a rule knows, the rule's name and an axis for each dimension."""
    known = {}
    for name in tensors(model):
        rule, dimensions = factors_of(model, name, rules)
        if rule:
            known[name] = rule, [_axis(dimension) for dimension in dimensions]
    return known


def _axis(dimension: Dimension) -> Axis:
    return tuple(Space(f.size, "" if f.grows else f.name) for f in dimension if f.size != 1)
