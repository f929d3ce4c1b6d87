"""Derive a weights map from two modules: align the blocks, find the channel spaces, choose an index for each."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor, nn

from seeking.errors import NotContainedError, SeekingError, unknown
from seeking.matching.align import DepthPolicy, WidthPolicy, align, choose, differing_types
from seeking.matching.inputs import example_inputs
from seeking.matching.rules import BUILT_IN, RULES, Rule, plain, structure
from seeking.matching.rules import Dimension as Factors
from seeking.matching.solve import Dimension, solve, value
from seeking.matching.spaces import Axis, Space, size_of, terminal
from seeking.matching.trace import Forward, UntraceableError, call, trace
from seeking.weights_map import Entry, Index, WeightsMap, tensors


class MatchWarning(UserWarning):
    """What a user should know of two models before training them."""


@dataclass(frozen=True)
class Override:
    """A user's word on one base tensor, or, with ``target`` alone, on one base module.

    Attributes:
        target: the motivated model's name for it.
        index: for each dimension positions (integers, or text such as ``"0:192, 384:576"``), or None for
            whatever the derivation would choose.
        space: let the index hold for every tensor that the same channels run through, not for this one alone.
    """

    target: str | None = None
    index: Sequence[str | Iterable[int] | None] | None = None
    space: bool = False


def match(
    base: nn.Module,
    motivated: nn.Module,
    *,
    batch: Any = None,
    forward: Forward | None = None,
    depth: DepthPolicy = "leading",
    width: WidthPolicy = "leading",
    overrides: Mapping[str, Override] | None = None,
) -> WeightsMap:
    """Find the base model in the motivated model.

    Modules are matched by name and the blocks of stages by the depth policy. Both models run once without data, which
    shows the channel spaces that the dimensions of their tensors are made of; in each space, as many positions as the
    base has are chosen by the width policy. Where a model cannot be run without data, names, shapes and the rules for
    layers (see ``seeking.matching.rules``) must do, and a warning says so. The models may be on the meta device. The
    result is a proposal: ``seeking.verify`` proves it.

    Args:
        base: the smaller model.
        motivated: the larger model.
        batch: one input, as ``forward`` takes it; only shapes and integers matter. If not given, one is made for
            models of timm and transformers, and for those whose first layer tells.
        forward: runs a model on the batch. The default calls ``model(batch)``, ``model(*batch)`` for a tuple or
            list, ``model(**batch)`` for a mapping.
        depth: blocks of a longer stage that are the base's: the ``leading`` ones, or ``spread`` over the stage.
        width: positions of a larger space that are the base's: the ``leading`` ones, or at ``even`` distance.
        overrides: what the user knows better, by name of a base tensor or module.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: an override or a policy that does not make sense.
    """
    for kind, policy, known in (("depth policy", depth, DepthPolicy), ("width policy", width, WidthPolicy)):
        if policy not in get_args(known):
            raise unknown(kind, policy, get_args(known))
    overrides = overrides or {}
    small, large = tensors(base), tensors(motivated)
    modules = {name for name, _ in base.named_modules(remove_duplicate=False)}
    for name in overrides:
        if name not in small and name not in modules:
            raise unknown("base tensor or module in overrides", name, [*small, *modules])
        if overrides[name].index is not None and name not in small:
            raise SeekingError(f"{name}: an override of a module takes a target, not an index; name its tensors")
    classes = getattr(base, "num_classes", None), getattr(motivated, "num_classes", None)
    if None not in classes and classes[0] != classes[1]:
        raise NotContainedError(
            f"different numbers of classes: the base has {classes[0]}, the motivated model {classes[1]}"
        )

    renames = {name: o.target for name, o in overrides.items() if o.target and name in modules}
    modules_at = align(base, motivated, depth, renames)
    _compare_dropout(base, motivated, modules_at)
    targets = _targets(base, motivated, modules_at, overrides)

    spaces = _Spaces(base, motivated, batch, forward)
    dimensions = [
        Dimension(f"{name}, dimension {dim}", size, axis, own)
        for name, tensor in small.items()
        for dim, (size, axis, own) in enumerate(
            zip(tensor.shape, spaces.motivated(targets[name]), spaces.base(name), strict=True)
        )
    ]
    given = {name: _positions(name, small[name], o.index) for name, o in overrides.items() if o.index is not None}
    try:
        sizes = solve([d for d in dimensions if d.size or d.axis])
    except NotContainedError as error:
        name = str(error).partition(",")[0]
        module = name.rpartition(".")[0]
        remark = differing_types(base, motivated, module, modules_at.get(module, "")) if name in small else ""
        raise NotContainedError(f"{error}{remark}") from None
    chosen = _Choice(sizes, width)
    for name, pins in given.items():
        for dim, positions in enumerate(pins):
            if positions is not None and overrides[name].space:
                chosen.pin(f"{name}, dimension {dim}", spaces.motivated(targets[name])[dim], positions)

    entries = {}
    for name, tensor in small.items():
        shape = large[targets[name]].shape
        axes = spaces.motivated(targets[name])
        pins = given[name] if name in given and not overrides[name].space else [None] * tensor.ndim
        index = tuple(
            chosen.index(axis, size, there) if own is None else own
            for own, axis, size, there in zip(pins, axes, tensor.shape, shape, strict=True)
        )
        origin = "user" if name in overrides or chosen.is_pinned(axes) else spaces.origin[targets[name]]
        entries[name] = Entry(targets[name], index, tuple(shape), origin)
    return WeightsMap(
        entries,
        {name: tuple(tensor.shape) for name, tensor in large.items()},
        buffers=(name for name, _ in motivated.named_buffers(remove_duplicate=False)),
    )


def _targets(
    base: nn.Module, motivated: nn.Module, modules_at: Mapping[str, str], overrides: Mapping[str, Override]
) -> dict[str, str]:
    """The motivated model's tensor for each of the base's, by name."""
    large = tensors(motivated)
    targets = {}
    for name, tensor in tensors(base).items():
        module, _, leaf = name.rpartition(".")
        place = modules_at[module]
        target = overrides.get(name, Override()).target or (f"{place}.{leaf}" if place else leaf)
        remark = differing_types(base, motivated, module, place)
        if target not in large:
            raise NotContainedError(f"{name}: the motivated model has no tensor {target}{remark}")
        if tensor.ndim != large[target].ndim:
            raise NotContainedError(
                f"{name}: {tensor.ndim} dimensions in the base, {large[target].ndim} in {target}{remark}"
            )
        targets[name] = target
    return targets


def _positions(name: str, tensor: Tensor, index: Sequence[str | Iterable[int] | None]) -> list[Index | None]:
    """Read the index of an override."""
    if isinstance(index, str):
        raise SeekingError(f"{name}: the index of an override is a list with an item for each dimension, not {index!r}")
    found: list[Index | None] = []
    for given in index:
        if given is None or isinstance(given, str):
            found.append(None if given is None else Index.parse(given))
            continue
        numbers = list(given)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise SeekingError(f"{name}: an override names positions by numbers from 0 up, not {numbers!r}")
        found.append(Index.of(numbers))
    if len(found) != tensor.ndim:
        raise NotContainedError(f"{name}: {tensor.ndim} dimensions in the base, {len(found)} in its override")
    for dim, positions in enumerate(found):
        if positions is not None and len(positions) != tensor.shape[dim]:
            raise SeekingError(
                f"{name}, dimension {dim}: the override names {len(positions)} positions, "
                f"the base tensor has {tensor.shape[dim]}"
            )
    return found


class _Spaces:
    """The axes of both models' tensors, from a trace of each, else from rules, else one space a dimension."""

    def __init__(self, base: nn.Module, motivated: nn.Module, batch: Any, forward: Forward | None) -> None:
        self._models = base, motivated
        self._tensors = tensors(base), tensors(motivated)
        self.origin = dict.fromkeys(self._tensors[1], "structure")
        """What the axes of each tensor of the motivated model are known from."""
        self._axes: tuple[dict[str, list[Axis]], dict[str, list[Axis]]] = {}, {}
        self._apply(RULES)
        if not self._trace(batch, forward):
            self._apply(BUILT_IN)

    def _apply(self, rules: Sequence[Rule]) -> None:
        for side, model in enumerate(self._models):
            for name in self._tensors[side].keys() - self._axes[side].keys():
                rule, factors = _factors(model, name, rules)
                if rule:
                    self._axes[side][name] = [_axis(dimension) for dimension in factors]
                    if side:
                        self.origin[name] = f"rule: {rule}"

    def _trace(self, batch: Any, forward: Forward | None) -> bool:
        base = self._models[0]
        reason = "no example input could be made for it; give match a batch"
        for one in [batch] if batch is not None else example_inputs(base):
            try:
                found = [trace(model, one, forward or call, self._axes[i]) for i, model in enumerate(self._models)]
            except UntraceableError as error:
                reason = str(error)
                continue
            for known, new in zip(self._axes, found, strict=True):
                known.update(new)
            return True
        warnings.warn(
            f"{type(base).__name__}: the channel spaces are unknown, since the model cannot be run without data "
            f"({reason}). Dimensions are matched by names, shapes and rules; seeking.verify tells whether rightly.",
            MatchWarning,
            stacklevel=5,
        )
        return False

    def base(self, name: str) -> list[Axis]:
        return self._read(0, name)

    def motivated(self, name: str) -> list[Axis]:
        return self._read(1, name)

    def _read(self, side: int, name: str) -> list[Axis]:
        if name not in self._axes[side]:
            self._axes[side][name] = [_axis(dimension) for dimension in plain(self._tensors[side][name])]
            if side:
                self.origin[name] = "name"
        return self._axes[side][name]


def _axis(factors: Factors) -> Axis:
    return tuple(Space(f.size, "" if f.grows else f.name) for f in factors if f.size != 1)


def _factors(model: nn.Module, name: str, rules: Sequence[Rule]) -> tuple[str, Sequence[Factors]]:
    """What a tensor's dimensions are made of, by the innermost module above it that has a rule for it."""
    path = name.split(".")
    for depth in range(len(path) - 1, -1, -1):
        rule_name, found = structure(model.get_submodule(".".join(path[:depth])), rules)
        factors = found.get(".".join(path[depth:]))
        if factors is not None:
            return rule_name, factors
    return "", []


class _Choice:
    """The positions of the base in each space of the motivated model."""

    def __init__(self, sizes: Mapping[Space, int], width: WidthPolicy) -> None:
        self._sizes = dict(sizes)
        self._width = width
        self._pinned: dict[Space, Index] = {}
        self._found: dict[tuple[Space, ...], Index] = {}

    def pin(self, where: str, axis: Axis, positions: Index) -> None:
        """Take a user's positions for a whole space."""
        spaces = terminal(axis)
        if len(spaces) != 1 or spaces[0].segments:
            raise SeekingError(
                f"{where}: several channel spaces meet in this dimension; pin a dimension that one of them has alone, "
                "or this tensor's index without its space"
            )
        if spaces[0].fixed:
            raise SeekingError(f"{where}: the {spaces[0].fixed} is the same in both models; there is nothing to pin")
        self._pinned[spaces[0]] = positions

    def is_pinned(self, axes: Iterable[Axis]) -> bool:
        return any(space in self._pinned for axis in axes for space in terminal(axis))

    def index(self, axis: Axis, size: int, target_size: int) -> Index:
        """Positions of the base in a dimension of the motivated model."""
        key = tuple(terminal(axis))
        if value(axis, self._sizes) != size:  # Nothing tells the parts of this dimension apart.
            return Index.of(choose(size, target_size, self._width))
        if key not in self._found:
            self._found[key] = Index.of(self._product(key))
        return self._found[key]

    def _product(self, axis: Axis) -> Sequence[int]:
        found: Sequence[int] = range(1)
        for space in terminal(axis):
            inner = self._within(space)
            if found == range(1):
                found = inner
            elif inner == range(space.size) and isinstance(found, range) and found.step == 1:
                found = range(found.start * space.size, found.stop * space.size)
            else:
                found = [outer * space.size + position for outer in found for position in inner]
        return found

    def _within(self, space: Space) -> Sequence[int]:
        if space.segments:
            found: list[int] = []
            start = 0
            for segment in space.segments:
                found += [start + position for position in self._product(segment)]
                start += size_of(segment)
            return found
        if space.fixed:
            return range(space.size)
        if space in self._pinned:
            return list(self._pinned[space])
        return choose(self._sizes[space], space.size, "leading" if space.ordered else self._width)


def _compare_dropout(base: nn.Module, motivated: nn.Module, modules_at: Mapping[str, str]) -> None:
    """Warn of layers that drop at another rate in the motivated model than in the base."""
    differing = []
    for name, place in modules_at.items():
        rates = [_rate(model.get_submodule(path)) for model, path in ((base, name), (motivated, place))]
        if rates[0] != rates[1]:
            differing.append(f"{name}: {rates[0]:g} in the base, {rates[1]:g} in the motivated model")
    if differing:
        warnings.warn(
            f"dropout or stochastic depth differs in {len(differing)} shared layers ({differing[0]}"
            + (", …" if len(differing) > 1 else "")
            + "): what the models share is trained at two rates. Give both models the same rates if that is not meant.",
            MatchWarning,
            stacklevel=3,
        )


def _rate(module: nn.Module) -> float:
    rate = getattr(module, "drop_prob", None)
    if rate is None and isinstance(module, nn.modules.dropout._DropoutNd):
        rate = module.p
    return float(rate or 0)
