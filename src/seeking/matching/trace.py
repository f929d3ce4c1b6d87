"""The channel spaces of a model, found by running it without data and watching what each operation does to axes."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from seeking.matching.spaces import (
    HEAD,
    Axis,
    Space,
    Unaligned,
    constant,
    cut,
    fix,
    free,
    is_fixed,
    joined,
    mark,
    regroup,
    size_of,
    unify,
)
from seeking.weights_map import tensors, tensors_in

Forward = Callable[[nn.Module, Any], Any]

INPUT = "size of the input"
MIXED = "number of channels that are mixed across uneven boundaries"


class UntraceableError(Exception):
    """A model that cannot be run without data, with the reason."""


def call(model: nn.Module, batch: Any) -> Any:
    """Run a model on a batch: ``model(batch)``, ``model(*batch)`` for a tuple or list, ``model(**batch)`` for a
    mapping.
    """
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def trace(
    model: nn.Module, batch: Any, forward: Forward = call, known: Mapping[str, list[Axis]] | None = None
) -> dict[str, list[Axis]]:
    """Find what the dimensions of a model's parameters and buffers are made of.

    The model runs once in evaluation mode on the meta device: shapes flow through it, and no numbers. Integers keep
    their values, so that a forward may look at indices and sizes, but not at activations.

    Args:
        model: left as it is.
        batch: one input, as ``forward`` takes it.
        forward: runs a model on the batch.
        known: what is known of some tensors beforehand.

    Returns:
        For each tensor that the forward pass touches, an axis for each dimension.

    Raises:
        UntraceableError: the forward pass fails without numbers.
    """
    try:
        return _trace(model, batch, forward, known or {}, on_meta=True)
    except UntraceableError as error:
        # Numbers of the batch may be needed before they meet the first weight.
        with contextlib.suppress(UntraceableError):
            return _trace(model, batch, forward, known or {}, on_meta=False)
        raise error


# In a caller's inference mode, operations would come whole and not as the basic ones that the rules are for.
@torch.inference_mode(False)
def _trace(
    model: nn.Module, batch: Any, forward: Forward, known: Mapping[str, list[Axis]], on_meta: bool
) -> dict[str, list[Axis]]:
    twins: dict[int, Tensor] = {}
    own = tensors(model)
    for tensor in own.values():
        twins[id(tensor)] = torch.empty_like(tensor, device="meta") if _real(tensor) else tensor.detach().clone()
    # Once for each module: functional_call would not restore one that it meets under two names.
    swapped = {
        f"model.{path}.{name}" if path else f"model.{name}": twins[id(tensor)]
        for path, module in model.named_modules()
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    }
    tracer = Tracer()
    for name, axes in known.items():
        tracer.write(twins[id(own[name])], axes)
    batch = tree_map(
        lambda t: (
            (torch.empty_like(t, device="meta") if on_meta and _real(t) else t.clone()) if isinstance(t, Tensor) else t
        ),
        batch,
    )
    for tensor in tensors_in(batch):
        tracer.write(tensor, [constant(size, INPUT) for size in tensor.shape])
    try:
        with torch.no_grad(), evaluation(model), tracer:
            wrapper = _Forward(model, forward)
            output = torch.func.functional_call(wrapper, swapped, (batch,), tie_weights=False)
    except Exception as error:
        raise UntraceableError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    for tensor in tensors_in(output):
        for axis in tracer.read(tensor):
            for space in axis:
                _close(space)
    return {
        name: tracer.axes[id(twins[id(tensor)])][1]
        for name, tensor in own.items()
        if id(twins[id(tensor)]) in tracer.axes
    }


def _real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards it has every attribute that it had, whatever its forward has set."""
    before = []
    for module in model.modules():
        inner = {
            key: dict(value) for key, value in vars(module).items() if key in ("_parameters", "_buffers", "_modules")
        }
        before.append((module, dict(vars(module)), inner))
    fastpath = torch.backends.mha.get_fastpath_enabled()
    try:
        model.eval()
        # One opaque operation otherwise, which also puts out nested tensors.
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module, attributes, inner in before:
            now = vars(module)
            for key in now.keys() - attributes.keys():
                del now[key]
            now.update(attributes)
            for key, content in inner.items():
                now[key].clear()
                now[key].update(content)


def _close(space: Space) -> None:
    """What a model only puts out is of one length in both models."""
    for inner in space.parts or ():
        _close(inner)
    if space.parts is None and not space.read:
        fix((space,), "length of the output")


class _Forward(nn.Module):
    def __init__(self, model: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model, self.run = model, forward

    def forward(self, batch: Any) -> Any:
        return self.run(self.model, batch)


class Tracer(TorchDispatchMode):
    """Follows axes through the operations that run inside it.

    Attributes:
        axes: by the identity of a tensor, the tensor (so that it stays alive) and its axes.
        scores: by the identity of a tensor that is a product, or comes of one, the axes that were summed over. A
            softmax of them makes it attention.
        contracted: the axes that the last product summed over.
    """

    def __init__(self) -> None:
        super().__init__()
        self.axes: dict[int, tuple[Tensor, list[Axis]]] = {}
        self.scores: dict[int, list[Axis]] = {}
        self.contracted: list[Axis] = []

    def read(self, tensor: Tensor) -> list[Axis]:
        """The axes of a tensor; of an unknown one, such as a constant, nothing is known."""
        if id(tensor) not in self.axes:
            self.write(tensor, [free(size) for size in tensor.shape])
        return self.axes[id(tensor)][1]

    def write(self, tensor: Tensor, axes: Sequence[Axis]) -> None:
        """Note the axes of a tensor."""
        self.axes[id(tensor)] = tensor, list(axes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = _flat(*args, *kwargs.values())
        if not given and str(kwargs.get("device")) == "meta":
            # A constant: of integers, the values may decide the way through the model.
            constant_tensor = func(*args, **{**kwargs, "device": "cpu"})
            integers = isinstance(constant_tensor, Tensor) and not constant_tensor.is_floating_point()
            return constant_tensor if integers else func(*args, **kwargs)
        if any(tensor.is_meta for tensor in given) and kwargs.get("device") is not None:
            kwargs["device"] = "meta"
        if any(tensor.is_meta for tensor in given) and not all(tensor.is_meta for tensor in given):
            args, kwargs = tree_map(self._on_meta, (args, kwargs))
            given = _flat(*args, *kwargs.values())
        name = func.overloadpacket.__name__
        output = _quickly(name, args, given) if len(kwargs) == 0 else None
        if output is None:
            output = func(*args, **kwargs)
        made = _flat(output)
        if not given or not made:
            return output
        try:
            axes = RULES.get(name, _elementwise)(self, args, kwargs, made)
        except Unaligned:
            axes = [_mixed(self, given[0], tensor) for tensor in made]
        except (IndexError, TypeError, ValueError):  # Called in a way that the rule does not know.
            axes = [_unknown(self, given[0], tensor) for tensor in made]
        scores = [axis for tensor in given for axis in self.scores.get(id(tensor), ())]
        if name in PRODUCTS:
            scores = self.contracted if name in ("bmm", "baddbmm") else []
        for tensor, its in zip(made, axes, strict=False):
            if name in RESHAPING or not any(tensor is one for one in given):  # In place, the axes stay.
                self.write(tensor, its)
            if scores:
                self.scores[id(tensor)] = scores
        return output

    def _on_meta(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.is_meta:
            return value
        twin = torch.empty_like(value, device="meta")
        self.write(twin, self.read(value))
        if id(value) in self.scores:
            self.scores[id(twin)] = self.scores[id(value)]
        return twin


def _flat(*values: Any) -> list[Tensor]:
    """The tensors among an operation's arguments or results, which hold lists of tensors at most."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(item for item in value if isinstance(item, Tensor))
    return found


PRODUCTS = {"bmm", "baddbmm", "mm", "addmm", "mv", "linear", "convolution"}
"""Operations that sum over an axis; of two activations, that is a batched product."""

RESHAPING = {"squeeze_", "unsqueeze_", "transpose_", "t_"}
"""Operations in place after which a tensor has other dimensions."""

QUICK = {"mul", "add", "sub", "div", "neg", "rsqrt", "silu", "gelu", "relu", "sigmoid", "tanh", "exp", "cos", "sin"}


def _quickly(name: str, args: Sequence[Any], given: Sequence[Tensor]) -> Tensor | None:
    """The result of a common operation on floats without its meta kernel, which is slow; None for other operations."""
    first = given[0] if name in QUICK and given else None
    if first is None or not all(tensor.is_meta and tensor.dtype == first.dtype for tensor in given):
        return None
    if not first.is_floating_point() or any(isinstance(value, complex) for value in args):
        return None
    shape = first.shape if len(given) == 1 else torch.broadcast_shapes(*(tensor.shape for tensor in given))
    return torch.empty(shape, dtype=first.dtype, device="meta")


Rule = Callable[[Tracer, Sequence[Any], Mapping[str, Any], list[Tensor]], list[list[Axis]]]
"""From an operation's arguments and results to the axes of the results."""

RULES: dict[str, Rule] = {}


def operation(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of ATen operations, by name without overload."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _attempt(one: Axis, other: Axis) -> None:
    """Unify, or, where boundaries do not meet, note that these channels can only be taken as they are."""
    try:
        unify(one, other)
    except Unaligned:
        fix(one, MIXED)
        fix(other, MIXED)


def _unknown(tracer: Tracer, source: Tensor, result: Tensor) -> list[Axis]:
    """Axes of a result that no rule explains: dimensions that keep their place and size are the same.

    The others are positions, as after pooling an image, or something new.
    """
    before = tracer.read(source)
    axes = []
    for dim, size in enumerate(result.shape):
        old = before[dim] if dim < source.ndim else None
        if old is not None and source.shape[dim] == size:
            axes.append(old)
        else:
            position = dim >= 2 and result.ndim > 3 and old is not None and is_fixed(old)
            axes.append(constant(size, INPUT) if position else free(size))
    return axes


def _mixed(tracer: Tracer, source: Tensor, result: Tensor) -> list[Axis]:
    """Axes of a result whose parts do not begin and end where the source's do: those channels stay as they are."""
    for dim, axis in enumerate(tracer.read(source)):
        if dim >= result.ndim or source.shape[dim] != result.shape[dim]:
            fix(axis, MIXED)
    return _unknown(tracer, source, result)


def _elementwise(
    tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]
) -> list[list[Axis]]:
    """Broadcast arguments against each other; what every operation without a rule is taken for."""
    given = _flat(*args, *kwargs.values())
    results = []
    for result in made:
        axes: list[Axis | None] = [None] * result.ndim
        fits = False
        for tensor in given:
            offset = result.ndim - tensor.ndim
            if offset < 0 or any(size not in (1, result.shape[dim + offset]) for dim, size in enumerate(tensor.shape)):
                continue
            fits = True
            for dim, axis in enumerate(tracer.read(tensor)):
                if tensor.shape[dim] == result.shape[dim + offset]:
                    known = axes[dim + offset]
                    if known is None:
                        axes[dim + offset] = axis
                    else:
                        _attempt(known, axis)
        results.append(
            [free(size) if axis is None else axis for axis, size in zip(axes, result.shape, strict=True)]
            if fits
            else _unknown(tracer, given[0], result)
        )
    return results


def _arguments(names: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    for place, name in enumerate(names.split()):
        yield args[place] if place < len(args) else kwargs.get(name)


@operation(
    "view",
    "_unsafe_view",
    "_reshape_alias",
    "unsqueeze",
    "squeeze",
    "squeeze_",
    "unsqueeze_",
    "view_copy",
    "_reshape_copy",
)
def _view(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, result = args[0], made[0]
    axes = tracer.read(source)
    try:
        return [regroup([space for axis in axes for space in axis], result.shape)]
    except Unaligned:
        # Leading and trailing dimensions that stay are still known.
        before = after = 0
        shortest = min(source.ndim, result.ndim)
        while before < shortest and source.shape[before] == result.shape[before]:
            before += 1
        while after < shortest - before and source.shape[-1 - after] == result.shape[-1 - after]:
            after += 1
        middle = axes[before : source.ndim - after]
        for axis in middle:
            fix(axis, MIXED)
        new = [constant(size, INPUT) for size in result.shape[before : result.ndim - after]]
        return [[*axes[:before], *new, *axes[source.ndim - after :]]]


@operation("t", "t_")
def _t(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    return [tracer.read(args[0])[::-1]]


@operation("transpose", "transpose_")
def _transpose(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    axes = list(tracer.read(args[0]))
    if axes:
        axes[args[1]], axes[args[2]] = axes[args[2]], axes[args[1]]
    return [axes]


@operation("permute")
def _permute(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    axes = tracer.read(args[0])
    return [[axes[dim] for dim in args[1]]]


@operation("expand", "expand_copy")
def _expand(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, result = args[0], made[0]
    axes = tracer.read(source)
    offset = result.ndim - source.ndim
    return [
        [
            axes[dim - offset] if dim >= offset and source.shape[dim - offset] == size else free(size)
            for dim, size in enumerate(result.shape)
        ]
    ]


@operation("repeat")
def _repeat(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, result = args[0], made[0]
    axes: list[Axis] = [()] * (result.ndim - source.ndim) + tracer.read(source)
    return [[(*free(times), *axis) for times, axis in zip(args[1], axes, strict=True)]]


@operation("repeat_interleave")
def _repeat_interleave(
    tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]
) -> list[list[Axis]]:
    source, times, dim = _arguments("self repeats dim", args, kwargs)
    if not isinstance(times, int) or dim is None:
        return [_unknown(tracer, source, made[0])]
    axes = list(tracer.read(source))
    axes[dim] = (*axes[dim], *free(times))
    return [axes]


@operation("select")
def _select(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    axes = list(tracer.read(args[0]))
    fix(axes.pop(args[1] % args[0].ndim), "number of parts that are taken one by one")
    return [axes]


@operation("unbind")
def _unbind(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, dim = _arguments("self dim", args, kwargs)
    axes = list(tracer.read(source))
    fix(axes.pop((dim or 0) % source.ndim), "number of parts that are taken one by one")
    return [axes for _ in made]


@operation("slice")
def _slice(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, dim, start, end, step = _arguments("self dim start end step", args, kwargs)
    dim = (dim or 0) % source.ndim
    axes = list(tracer.read(source))
    axis, size = axes[dim], source.shape[dim]
    begin, stop, step = slice(start, min(end if end is not None else size, size), step or 1).indices(size)
    if begin < step and stop > size - step and step > 1 and size % step == 0:
        axes[dim], remainder = regroup(axis, (size // step, step))
        fix(remainder, "number of parts that are taken one by one")
        return [axes]
    if step > 1:
        axes[dim] = constant(made[0].shape[dim], INPUT) if is_fixed(axis) else free(made[0].shape[dim])
        return [axes]
    if stop < size and stop > 0:
        axis, _ = cut(axis, stop)
    if 0 < begin < stop:
        _, axis = cut(axis, begin)
    axes[dim] = axis if size_of(axis) == made[0].shape[dim] else free(made[0].shape[dim])
    return [axes]


@operation("split", "split_with_sizes", "unsafe_split")
def _split(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, _, dim = _arguments("self sizes dim", args, kwargs)
    dim = (dim or 0) % source.ndim
    axes = tracer.read(source)
    rest = axes[dim]
    results = []
    for piece in made:
        size = piece.shape[dim]
        taken, rest = cut(rest, size) if size < size_of(rest) else (rest, ())
        results.append([*axes[:dim], taken, *axes[dim + 1 :]])
    return results


@operation("cat")
def _cat(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    given, dim = _arguments("tensors dim", args, kwargs)
    result = made[0]
    dim = (dim or 0) % result.ndim
    joining = [tracer.read(tensor) for tensor in given if tensor.ndim == result.ndim and tensor.shape[dim]]
    axes = list(joining[0])
    for other in joining[1:]:
        for place in range(result.ndim):
            if place != dim:
                _attempt(axes[place], other[place])
    axes[dim] = joined([one[dim] for one in joining])
    return [axes]


@operation("stack")
def _stack(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    given, dim = _arguments("tensors dim", args, kwargs)
    dim = (dim or 0) % made[0].ndim
    stacked = [tracer.read(tensor) for tensor in given]
    for other in stacked[1:]:
        for one, two in zip(stacked[0], other, strict=True):
            _attempt(one, two)
    axes = list(stacked[0])
    axes.insert(dim, constant(len(given), "number of joined parts"))
    return [axes]


@operation("constant_pad_nd", "reflection_pad2d", "replication_pad2d", "reflection_pad1d")
def _pad(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, padding = args[0], args[1]
    axes = list(tracer.read(source))
    for place in range(len(padding) // 2):
        dim = source.ndim - 1 - place
        before, after = padding[2 * place : 2 * place + 2]
        if not before and not after:
            continue
        if is_fixed(axes[dim]) or before < 0 or after < 0:
            axes[dim] = constant(made[0].shape[dim], INPUT)
        else:
            axes[dim] = joined([*([free(before)] if before else []), axes[dim], *([free(after)] if after else [])])
    return [axes]


def _contract(tracer: Tracer, left: Axis, right: Axis) -> None:
    _attempt(left, right)
    mark((*left, *right), read=True)
    tracer.contracted = [left, right]


@operation("mm")
def _mm(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    a, b = (tracer.read(tensor) for tensor in args[:2])
    _contract(tracer, a[1], b[0])
    return [[a[0], b[1]]]


@operation("addmm", "baddbmm")
def _addmm(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    product = (_mm if args[1].ndim == 2 else _bmm)(tracer, args[1:3], {}, made)[0]
    for axis, added in zip(product[::-1], tracer.read(args[0])[::-1], strict=False):
        if size_of(axis) == size_of(added):
            _attempt(axis, added)
    return [product]


@operation("bmm")
def _bmm(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    a, b = (tracer.read(tensor) for tensor in args[:2])
    _attempt(a[0], b[0])
    _contract(tracer, a[2], b[1])
    return [[a[0], a[1], b[2]]]


@operation("mv")
def _mv(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    a, b = (tracer.read(tensor) for tensor in args[:2])
    _contract(tracer, a[1], b[0])
    return [[a[0]]]


@operation("linear")
def _linear(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, weight, bias = _arguments("input weight bias", args, kwargs)
    axes, rows = list(tracer.read(source)), tracer.read(weight)
    _contract(tracer, axes[-1], rows[1])
    if bias is not None:
        _attempt(rows[0], tracer.read(bias)[0])
    return [[*axes[:-1], rows[0]]]


@operation("convolution", "_convolution", "convolution_overrideable")
def _convolution(
    tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]
) -> list[list[Axis]]:
    source, weight, bias, *_ = args
    transposed, groups = args[6], args[8]
    channels = tracer.read(source)[1]
    first, second, *kernel = tracer.read(weight)
    for axis in kernel:
        fix(axis, "kernel size")
    if transposed:
        inputs = first
        outputs = second
        if groups > 1:
            shared = free(groups)
            _attempt(first, (*shared, *free(weight.shape[0] // groups)))
            outputs = (*shared, *second)
    else:
        inputs, outputs = second, first
        if groups > 1:
            shared = free(groups)
            inputs = (*shared, *second)
            _attempt(first, (*shared, *free(weight.shape[0] // groups)))
    _attempt(channels, inputs)
    mark((*channels, *inputs), read=True)
    if bias is not None:
        _attempt(outputs, tracer.read(bias)[0])
    positions: list[Axis] = []
    for axis, before, after in zip(tracer.read(source)[2:], source.shape[2:], made[0].shape[2:], strict=True):
        if before == after and not is_fixed(axis):
            mark(axis, ordered=True, read=True)  # Channels convolved over, one with its neighbours.
            positions.append(axis)
        else:
            positions.append(constant(after, INPUT))
    return [[tracer.read(source)[0], outputs, *positions]]


@operation(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "cudnn_batch_norm",
)
def _batch_norm(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    axes = tracer.read(args[0])
    for tensor in args[1:]:
        if isinstance(tensor, Tensor) and tensor.ndim == 1:
            _attempt(axes[1], tracer.read(tensor)[0])
    return [axes]


@operation("native_group_norm")
def _group_norm(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, weight, bias, _, channels, _, groups, *_ = args
    axes = tracer.read(source)
    if groups > 1:
        _attempt(axes[1], (*free(groups), *free(channels // groups)))
    for tensor in (weight, bias):
        if tensor is not None:
            _attempt(axes[1], tracer.read(tensor)[0])
    return [axes]


@operation("embedding")
def _embedding(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    rows, columns = tracer.read(args[0])
    mark(rows, ordered=True, read=True)
    return [[*tracer.read(args[1]), columns]]


@operation("index", "_unsafe_index")
def _index(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, indices = args
    axes = tracer.read(source)
    indexed = [dim for dim, index in enumerate(indices) if index is not None]
    for dim in indexed:
        mark(axes[dim], ordered=True, read=True)
    rank = made[0].ndim - (source.ndim - len(indexed))
    together = indexed == list(range(indexed[0], indexed[-1] + 1))
    place = indexed[0] if together else 0
    kept = [axis for dim, axis in enumerate(axes) if dim not in indexed]
    new = [constant(size, INPUT) for size in made[0].shape[place : place + rank]]
    result = [*kept[:place], *new, *kept[place:]]
    if [size_of(axis) for axis in result] != list(made[0].shape):
        raise Unaligned  # A mask selects as many as its values say.
    return [result]


@operation("index_select", "gather", "sort", "topk")
def _pick(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source = args[0]
    positional = [value for value in args[1:] if type(value) is int]
    # topk says first how many.
    counted = isinstance(args[1], int) and len(made) == 2 and made[0].shape != source.shape
    dim = kwargs.get("dim", next(iter(positional[counted:]), -1)) % max(1, source.ndim)
    axes = list(tracer.read(source))
    if axes:
        mark(axes[dim], ordered=True, read=True)
        axes[dim] = constant(made[0].shape[dim], INPUT)
    if [size_of(axis) for axis in axes] != list(made[0].shape):
        raise Unaligned
    return [axes for _ in made]


@operation("glu")
def _glu(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    dim = (args[1] if len(args) > 1 else -1) % args[0].ndim
    axes = list(tracer.read(args[0]))
    first, second = cut(axes[dim], made[0].shape[dim])
    unify(first, second)
    axes[dim] = first
    return [axes]


@operation("channel_shuffle")
def _channel_shuffle(
    tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]
) -> list[list[Axis]]:
    axes = list(tracer.read(args[0]))
    groups, channels = regroup(axes[1], (args[1], args[0].shape[1] // args[1]))
    axes[1] = (*channels, *groups)
    return [axes]


@operation("flip", "roll", "rot90")
def _turn(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    axes = tracer.read(args[0])
    dims = args[-1] if len(args) > 1 and isinstance(args[-1], (list, tuple)) else range(len(axes))
    for dim in dims:
        fix(axes[dim], MIXED)
    return [axes]


@operation("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(
    tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]
) -> list[list[Axis]]:
    rows, columns = tracer.read(args[0])
    mark(rows, ordered=True, read=True)
    return [[constant(made[0].shape[0], INPUT), columns], *([free(size) for size in more.shape] for more in made[1:])]


@operation(
    "sum",
    "mean",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "logsumexp",
    "prod",
    "argmax",
    "argmin",
    "any",
    "all",
    "var_mean",
    "std_mean",
    "nansum",
    "median",
    "count_nonzero",
)
def _reduce(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    source, result = args[0], made[0]
    others = [value for value in args[1:] if isinstance(value, Tensor)]
    if others:  # max and min of two tensors
        return _elementwise(tracer, args, kwargs, made)
    axes = tracer.read(source)
    where = kwargs.get("dim", args[1] if len(args) > 1 else None)
    dims = [where] if type(where) is int else list(where or range(source.ndim))
    reduced = {dim % source.ndim for dim in dims} if source.ndim else set()
    if result.ndim == source.ndim:
        kept: list[Axis] = [() if dim in reduced else axis for dim, axis in enumerate(axes)]
    else:
        kept = [axis for dim, axis in enumerate(axes) if dim not in reduced]
    if [size_of(axis) for axis in kept] != list(result.shape):
        raise Unaligned
    return [kept for _ in made]


@operation("linalg_vector_norm", "norm")
def _norm(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    return _reduce(tracer, (args[0], *args[2:]), kwargs, made)  # Their order stands before the dimensions.


@operation("_softmax", "_log_softmax", "softmax", "_safe_softmax", "log_softmax")
def _softmax(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    axes = tracer.read(args[0])
    if axes:
        fix(axes[args[1]], "number of shares in a softmax")
    for axis in tracer.scores.get(id(args[0]), ()):
        fix(axis, HEAD)
    return [axes]


@operation(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
def _attention(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    query, key, value = (tracer.read(tensor) for tensor in args[:3])
    _attempt(query[-1], key[-1])
    for axis in (query[-1], key[-1]):
        fix(axis, HEAD)
    for other in (key, value):
        heads, others = size_of(query[1]), size_of(other[1])
        _attempt(query[1], (*other[1], *free(heads // others)))
    return [[*query[:-1], value[-1]], *([free(size) for size in extra.shape] for extra in made[1:])]


@operation("pixel_shuffle")
def _pixel_shuffle(
    tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]
) -> list[list[Axis]]:
    axes = tracer.read(args[0])
    channels, factor = regroup(axes[1], (made[0].shape[1], args[1] ** 2))
    fix(factor, INPUT)
    return [[axes[0], channels, *(constant(size, INPUT) for size in made[0].shape[2:])]]


@operation("pixel_unshuffle")
def _pixel_unshuffle(
    tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]
) -> list[list[Axis]]:
    axes = tracer.read(args[0])
    channels = (*axes[1], *constant(args[1] ** 2, INPUT))
    return [[axes[0], channels, *(constant(size, INPUT) for size in made[0].shape[2:])]]


@operation("im2col")
def _im2col(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    axes = tracer.read(args[0])
    window = constant(math.prod(args[1]), "kernel size")
    return [[axes[0], (*axes[1], *window), constant(made[0].shape[-1], INPUT)]]


@operation("unfold")
def _unfold(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    axes = list(tracer.read(args[0]))
    axes[args[1]] = constant(made[0].shape[args[1] % args[0].ndim], INPUT)
    return [[*axes, constant(made[0].shape[-1], "kernel size")]]


@operation(
    "index_put",
    "index_put_",
    "scatter",
    "scatter_",
    "scatter_add",
    "scatter_add_",
    "index_copy",
    "index_copy_",
    "index_add",
    "index_add_",
    "masked_scatter",
    "_index_put_impl_",
    "select_scatter",
    "slice_scatter",
    "scatter_reduce",
)
def _write_into(tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any], made: list[Tensor]) -> list[list[Axis]]:
    return [tracer.read(args[0])]
