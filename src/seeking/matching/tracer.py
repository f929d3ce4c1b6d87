"""Find the channel spaces of a model: run it without data and follow the axes of its tensors through each operation."""

import contextlib
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import converted, inspecting, scratch_copy, train_own_code
from seeking.deterministic import Deterministic
from seeking.forward import Forward, call
from seeking.internals import PassingMode, tree_map
from seeking.matching.axes import (
    HEAD,
    INPUT,
    Axis,
    UnalignedError,
    constant,
    fix,
    free,
    size_of,
)
from seeking.matching.deciding import Decision, decides, may_hide
from seeking.matching.meta_kernels import META_KERNELS, fast_output
from seeking.matching.op_rules import OP_RULES, OpCall, broadcast, mixed
from seeking.matching.op_rules.base import same_where_sizes_stay
from seeking.matching.operation import Operation, flat_tensors, operation_of
from seeking.matching.outputs import settle
from seeking.matching.parts import Operations, joined_parts
from seeking.matching.statistics import WEIGHT_PRODUCTS, Reduction, Statistics
from seeking.outside import outside_preserved
from seeking.weights_map import Name, is_real, named_tensors, tensors, tensors_in


class UntraceableError(Exception):
    """A model cannot be run without data; the message says why."""


@dataclass(frozen=True)
class Trace:
    """What a forward pass shows of a model.

    Attributes:
        axes: for each parameter and buffer that the pass touches, an axis for each dimension.
        assumed: operations that were only assumed to be elementwise, by name, with the axes of their inputs.
        outputs: the axes of each tensor that the model puts out, by name, whatever ``forward`` makes of it.
        reductions: what was reduced, in the order of the pass.
        operations: names of all operations that count, as Operations notes them; batch norms are alike in both modes.
        scales: constants by which attention scales products of queries and keys; NaN for an unknown one.
        heads: sizes of the heads whose products it scales.
        joined: operations over parts that are joined, such as outputs of layers, with the number of parts.
        decisions: operations that decide by real numbers, or may hide them, in the order of the pass.
        numbers: whether the pass ran with the model's numbers, on which it may depend.
    """

    axes: dict[str, list[Axis]]
    assumed: dict[str, list[Axis]]
    outputs: dict[Name, list[Axis]]
    reductions: list[Reduction]
    operations: list[str]
    scales: set[float]
    heads: set[int]
    joined: list[tuple[str, int]]
    decisions: list[Decision]
    numbers: bool


def trace(
    model: nn.Module,
    batch: Any,
    forward: Forward = call,
    known: Mapping[str, list[Axis]] | None = None,
    *,
    before: Trace | None = None,
    training: bool = False,
    numbers: bool = False,
    free_heads: bool = False,
) -> Trace:
    """Find what the dimensions of a model's parameters and buffers are made of.

    A copy of the model runs once on the meta device: shapes flow through it, and no numbers. Integers keep
    their values, so that a forward may depend on indices and sizes, but not on activations.

    Args:
        model: on any device; left as it is.
        batch: one input, as ``forward`` takes it.
        forward: runs a model on the batch.
        known: the axes of some tensors, by name, where they are known beforehand. An operation that takes one of
            these tensors counts as known, too.
        before: an earlier trace of the model, whose axes this one goes on with.
        training: whether the model's own code runs in training mode; the layers of PyTorch are in evaluation mode.
        numbers: run the model with its numbers, on its device.
        free_heads: whether heads may be of another size in the other model, though attention scales their products.

    Raises:
        UntraceableError: the forward pass fails without numbers.
    """
    attempt = functools.partial(_trace, model, batch, forward, known or {}, before, training, free_heads, numbers)
    try:
        return attempt(real_batch=numbers)
    except UntraceableError as error:
        # The forward may need the batch's numbers before they meet the first weight, or those of masks that it makes.
        with contextlib.suppress(UntraceableError):
            return attempt(real_batch=True)
        raise error


# In a caller's inference mode, composite operations are not decomposed into those that have rules.
@torch.inference_mode(False)
def _trace(
    model: nn.Module,
    batch: Any,
    forward: Forward,
    known: Mapping[str, list[Axis]],
    before: Trace | None,
    training: bool,
    free_heads: bool,
    real_model: bool,
    real_batch: bool,
) -> Trace:
    twin = scratch_copy(model, lambda tensor: _copied(tensor, on_meta=not real_model))
    twins = tensors(twin)
    tracer = Tracer(free_heads, keep_constants=real_batch)
    tracer.computed.update(map(id, twin.parameters()))
    for name, axes in (before.axes if before else {}).items():
        tracer.write(twins[name], axes)
    for name, axes in known.items():
        tracer.write(twins[name], axes)
        tracer.explained.add(id(twins[name]))

    batch = converted(batch, lambda tensor: _copied(tensor, on_meta=not real_batch))
    for tensor in tensors_in(batch):
        tracer.write(tensor, [constant(size, INPUT) for size in tensor.shape])
    try:
        with inspecting(twin), outside_preserved(twin):
            if training:
                train_own_code(twin)
            model_outputs: list[Any] = []
            twin.register_forward_hook(lambda module, inputs, output: model_outputs.append(output))
            with Deterministic(), tracer:
                output = forward(twin, batch)
    except Exception as error:
        if tracer.rule_error is not None:
            raise tracer.rule_error from None
        # PyTorch goes on with all kernels that an operation has.
        first = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0]
        raise UntraceableError(first) from error
    returned = [tracer.read(tensor) for tensor in tensors_in(output)]
    tracer.use(tensors_in(output))
    used = {name: tensor for name, tensor in twins.items() if id(tensor) in tracer.used}
    settle(returned, [tracer.read(tensor)[0] for tensor in used.values() if tensor.ndim == 2])
    put_out = named_tensors(model_outputs[0] if model_outputs else output)
    return Trace(
        axes={name: tracer.read(tensor) for name, tensor in used.items()},
        assumed=tracer.assumed,
        outputs={name: tracer.read(tensor) for name, tensor in put_out.items()},
        reductions=tracer.statistics.reductions,
        operations=tracer.operations.texts,
        scales=tracer.scales,
        heads=tracer.heads,
        joined=tracer.joined,
        decisions=tracer.decisions,
        numbers=real_model,
    )


def _copied(tensor: Tensor, *, on_meta: bool) -> Tensor:
    return _on_meta(tensor) if on_meta and is_real(tensor) else tensor.clone()


def _on_meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


class Tracer(PassingMode):
    """Follows axes through the operations that run inside it.

    Attributes:
        axes: by the id of a tensor, the tensor (so that it stays alive) and its axes.
        scores: by the id of a tensor that is a product or comes from one, the axes that were summed over.
        assumed: operations without a rule that are not known to be elementwise, by name, with their inputs' axes.
        explained: ids of tensors whose operations need no rule.
        rule_error: what a rule has raised.
        used: ids of the tensors that operations take.
        scaled: by the id of a tensor, the constants by which it, or one that it comes from, was multiplied.
        scales: constants by which attention scales products of queries and keys.
        heads: sizes of the heads that it scales.
        computed: ids of the parameters, and of the tensors that come from them.
        producers: by the id of a tensor, the operation that it comes from, without namespace.
        statistics: what is reduced.
        operations: names of the operations, in words.
        joined: operations over parts that are joined, with the number of parts.
        decisions: operations that decide, or may hide what they take.
    """

    def __init__(self, free_heads: bool = False, *, keep_constants: bool = False) -> None:
        super().__init__()
        self._free_heads = free_heads
        self._keep_constants = keep_constants
        self.scales: set[float] = set()
        self.heads: set[int] = set()
        self.axes: dict[int, tuple[Tensor, list[Axis]]] = {}
        self.scores: dict[int, list[Axis]] = {}
        self.assumed: dict[str, list[Axis]] = {}
        self.explained: set[int] = set()
        self.rule_error: Exception | None = None
        self.used: set[int] = set()
        self.scaled: dict[int, frozenset[float]] = {}
        self.computed: set[int] = set()
        self.producers: dict[int, str] = {}
        self.statistics = Statistics()
        self.operations = Operations()
        self.joined: list[tuple[str, int]] = []
        self.decisions: list[Decision] = []
        self._unused: dict[int, list[tuple[Axis, str]]] = {}

    def read(self, tensor: Tensor) -> list[Axis]:
        """The axes of a tensor; those of an unknown one, such as a constant, are free."""
        if id(tensor) not in self.axes:
            self.write(tensor, [free(size) for size in tensor.shape])
        return self.axes[id(tensor)][1]

    def write(self, tensor: Tensor, axes: Sequence[Axis]) -> None:
        """Set the axes of a tensor."""
        self.axes[id(tensor)] = tensor, list(axes)

    def use(self, tensors: Iterable[Tensor]) -> None:
        """Take note that an operation takes these tensors, or that the model puts them out."""
        for tensor in tensors:
            self.used.add(id(tensor))
            for axis, why in self._unused.pop(id(tensor), ()):
                fix(axis, why)

    def _fix_if_used(self, tensor: Tensor, axis: Axis, why: str) -> None:
        self._unused.setdefault(id(tensor), []).append((axis, why))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        inputs = flat_tensors(*args, *kwargs.values())
        if not inputs and str(kwargs.get("device")) == "meta":
            # The forward may depend on the values of constants: of integers, or of masks.
            created = func(*args, **kwargs)
            keeps = self._keep_constants and isinstance(created, Tensor) and created.numel() <= MAX_CONSTANT
            is_integer = isinstance(created, Tensor) and not created.is_floating_point()
            return func(*args, **{**kwargs, "device": "cpu"}) if is_integer or keeps else created
        any_on_meta = any(tensor.is_meta for tensor in inputs)
        if inputs and kwargs.get("device") is not None and (any_on_meta or self._keep_constants):
            kwargs["device"] = "meta" if any_on_meta else inputs[0].device
        operation = operation_of(func)
        self.use(inputs)
        kernel = META_KERNELS.get(operation.name) if inputs and inputs[0].is_meta else None
        if not kernel and any(tensor.is_meta for tensor in inputs) and not all(tensor.is_meta for tensor in inputs):
            args, kwargs = tree_map(self._moved_to_meta, (args, kwargs))
            inputs = flat_tensors(*args, *kwargs.values())
        output: Any = fast_output(operation.name, args, inputs) if not kwargs else None
        if output is None:
            output = (kernel or func)(*args, **kwargs)
        outputs = flat_tensors(output)
        if any(tensor.is_nested and tensor.layout is torch.strided for tensor in outputs):
            raise TypeError("nested tensors of this layout have no shape")
        real, name = list(filter(is_real, inputs)), operation.short_name
        decided = decides(name, inputs, outputs, kwargs)
        if decided or may_hide(operation, inputs, outputs):
            self.decisions.append(Decision(name, [tuple(t.shape) for t in real], list(map(self.read, real))))
        if inputs and outputs:
            self.operations.add(name, args, inputs, outputs, decided=decided)
            try:
                self._follow(operation, args, kwargs, inputs, outputs)
            except Exception as error:
                error.add_note(f"in the rule of {operation.name}")
                self.rule_error = error
                raise
        return output

    def _follow(
        self,
        operation: Operation,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        inputs: list[Tensor],
        outputs: list[Tensor],
    ) -> None:
        """Write the axes of an operation's results."""
        scores = [axis for tensor in inputs for axis in self.scores.get(id(tensor), ())]
        name = operation.short_name
        scaled: frozenset[float] = frozenset()
        if name not in WEIGHT_PRODUCTS:  # What was scaled before is scaled anew by weights.
            scaled = scaled.union(*(self.scaled.get(id(tensor), ()) for tensor in inputs))
            scaled |= self._scale(name, args, kwargs, inputs)
        computed = any(id(tensor) in self.computed for tensor in inputs)
        call = OpCall(
            parameters=operation.parameters,
            args=args,
            kwargs=kwargs,
            inputs=inputs,
            outputs=outputs,
            axes=self.read,
            scores=scores,
            scaled=scaled,
            fix_head=self.fix_head,
            producers=self.producers,
            fix_if_used=self._fix_if_used,
        )
        self.joined += joined_parts(name, call)
        rule = OP_RULES.get(operation.name) or OP_RULES.get(operation.name.removesuffix("_"))
        try:
            if not any(tensor.numel() for tensor in outputs):
                rule = same_where_sizes_stay  # What holds nothing relates no channels.
            axes = rule(call) if rule else broadcast(call)
        except UnalignedError:
            axes = mixed(call)
        if (axes is None or not (rule or operation.pointwise)) and not any(id(t) in self.explained for t in inputs):
            input_axes = [axis for tensor in inputs for axis in self.read(tensor)]
            self.assumed.setdefault(operation.name, []).extend(input_axes)
        if axes is None:
            axes = same_where_sizes_stay(call)
        for tensor, tensor_axes in zip(outputs, axes, strict=False):
            in_place = any(tensor is other for other in inputs)
            if not in_place or operation.name in RESHAPING:
                self.write(tensor, tensor_axes)
            if call.scores:
                self.scores[id(tensor)] = call.scores
            if scaled:
                self.scaled[id(tensor)] = scaled
            if computed:
                self.computed.add(id(tensor))
            if not in_place or name.endswith("_"):
                self.producers[id(tensor)] = name
        self.statistics.follow(name, call)

    def fix_head(self, axis: Axis, scales: Iterable[float]) -> None:
        """Fix the size of a head, by which attention scales."""
        self.scales.update(scales)
        self.heads.add(size_of(axis))
        if not self._free_heads:
            fix(axis, HEAD)

    def _scale(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]) -> set[float]:
        """The constant other than one by which an operation multiplies or divides; what is learned is none."""
        numbers: list[Any] = []
        if name == "baddbmm":
            numbers = [kwargs.get("alpha", 1)]
        elif name.removesuffix("_") in ("mul", "div"):
            numbers = [value for value in args if isinstance(value, int | float)]
            if any(tensor.ndim == 0 and id(tensor) not in self.computed for tensor in inputs[len(inputs) < 2 :]):
                numbers.append(math.nan)
        return {float(number) for number in numbers if number != 1}

    def _moved_to_meta(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.is_meta:
            return value
        twin = _on_meta(value)
        self.write(twin, self.read(value))
        if id(value) in self.scores:
            self.scores[id(twin)] = self.scores[id(value)]
        if id(value) in self.scaled:
            self.scaled[id(twin)] = self.scaled[id(value)]
        return twin


MAX_CONSTANT = 1 << 20
"""Constants of real numbers that are larger, in entries, are not computed."""

RESHAPING = {"aten::squeeze_", "aten::unsqueeze_", "aten::transpose_", "aten::t_"}
"""Operations in place after which a tensor has other dimensions."""
