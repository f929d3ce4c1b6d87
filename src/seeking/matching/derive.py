"""Derive a weights map from two modules: align the blocks, then choose an index for every dimension."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn

from seeking.errors import NotContainedError, SeekingError, unknown
from seeking.matching.align import DepthPolicy, WidthPolicy, align, choose, differing_types
from seeking.matching.rules import Dimension, plain, structure
from seeking.weights_map import Entry, Index, WeightsMap, tensors


@dataclass(frozen=True)
class Override:
    """A user's word on one base tensor, or, with ``target`` alone, on one base module.

    Attributes:
        target: the motivated model's name for it.
        index: for each dimension positions (integers, or text such as ``"0:192, 384:576"``), or None for
            whatever the derivation would choose.
    """

    target: str | None = None
    index: Sequence[str | Iterable[int] | None] | None = None


def match(
    base: nn.Module,
    motivated: nn.Module,
    *,
    depth: DepthPolicy = "leading",
    width: WidthPolicy = "leading",
    overrides: Mapping[str, Override] | None = None,
) -> WeightsMap:
    """Find the base model in the motivated model.

    Modules are matched by name and the blocks of stages by the depth policy; within a tensor, each dimension takes
    as many positions as the base has, by the width policy, along the lines of the layer's structure (see
    ``seeking.matching.rules``). Only names and shapes are read, so both models may be on the meta device. The
    result is a proposal: ``seeking.verify`` proves it.

    Args:
        base: the smaller model.
        motivated: the larger model.
        depth: blocks of a longer stage that are the base's: the ``leading`` ones, or ``spread`` over the stage.
        width: positions of a longer dimension that are the base's: the ``leading`` ones, or at ``even`` distance.
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
    modules = {name for name, _ in base.named_modules()}
    for name in overrides:
        if name not in small and name not in modules:
            raise unknown("base tensor or module in overrides", name, [*small, *modules])

    classes = getattr(base, "num_classes", None), getattr(motivated, "num_classes", None)
    if None not in classes and classes[0] != classes[1]:
        raise NotContainedError(
            f"different numbers of classes: the base has {classes[0]}, the motivated model {classes[1]}"
        )

    renames = {name: o.target for name, o in overrides.items() if o.target and name in modules}
    places = align(base, motivated, depth, renames)
    entries = {}
    for name, tensor in small.items():
        override = overrides.get(name, Override())
        module, _, leaf = name.rpartition(".")
        place = places[module]
        target = override.target or (f"{place}.{leaf}" if place else leaf)
        remark = functools.partial(differing_types, base, motivated, module, place)
        if target not in large:
            raise NotContainedError(f"{name}: the motivated model has no tensor {target}{remark()}")
        origin, here = _dimensions(base, name, tensor)
        _, there = _dimensions(motivated, target, large[target])
        index = [None] * tensor.ndim if override.index is None else list(override.index)
        if tensor.ndim != large[target].ndim or len(index) != tensor.ndim:
            raise NotContainedError(
                f"{name}: {tensor.ndim} dimensions in the base, {large[target].ndim} in {target}"
                + (f", {len(index)} in its override" if override.index is not None else "")
                + remark()
            )
        chosen = []
        for dim, (given, a, b) in enumerate(zip(index, here, there, strict=True)):
            if given is not None:
                positions = Index.parse(given) if isinstance(given, str) else Index.of(given)
                if len(positions) != tensor.shape[dim]:
                    raise SeekingError(
                        f"{name}, dimension {dim}: the override names {len(positions)} positions, "
                        f"the base tensor has {tensor.shape[dim]}"
                    )
            else:
                positions = _select(a, b, width, f"{name}, dimension {dim}", remark)
            chosen.append(positions)
        if override != Override():
            origin = "user"
        entries[name] = Entry(target, tuple(chosen), tuple(large[target].shape), origin)
    return WeightsMap(
        entries,
        {name: tuple(tensor.shape) for name, tensor in large.items()},
        buffers=(name for name, _ in motivated.named_buffers(remove_duplicate=False)),
    )


def _dimensions(model: nn.Module, name: str, tensor: Tensor) -> tuple[str, Sequence[Dimension]]:
    """What a tensor's dimensions are made of, by the innermost module above it that has a rule for it."""
    path = name.split(".")
    for depth in range(len(path) - 1, -1, -1):
        rule_name, found = structure(model.get_submodule(".".join(path[:depth])))
        dimensions = found.get(".".join(path[depth:]))
        if dimensions is not None:
            return f"rule: {rule_name}", dimensions
    return "name", plain(tensor)


def _select(small: Dimension, large: Dimension, width: WidthPolicy, where: str, remark: Callable[[], str]) -> Index:
    """The positions of a dimension of the base in the motivated model's, factor by factor."""
    if [factor.name for factor in small] != [factor.name for factor in large]:
        raise NotContainedError(
            f"{where}: made of {', '.join(f.name for f in small)} in the base "
            f"and of {', '.join(f.name for f in large)} in the motivated model{remark()}"
        )
    positions: Iterable[int] = range(1)
    for a, b in zip(small, large, strict=True):
        if a.size > b.size or (a.size != b.size and not a.grows):
            why = "the motivated model's is smaller" if a.size > b.size else "it must be the same in both"
            raise NotContainedError(
                f"{where}: {a.name} {a.size} in the base, {b.size} in the motivated model; {why}{remark()}"
            )
        factor = choose(a.size, b.size, width)
        if positions == range(1):
            positions = factor
        elif factor == range(1) and b.size == 1:
            pass
        else:
            positions = [outer * b.size + inner for outer in positions for inner in factor]
    return Index.of(positions)
