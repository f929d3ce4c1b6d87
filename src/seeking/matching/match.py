"""Derive a weights map from two modules: align the blocks, find the channel spaces, choose an index for each."""

import contextlib
import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from seeking.choices import DepthPolicy, WidthPolicy
from seeking.copies import copied, inspecting, scratch_copy, stateless
from seeking.errors import MatchWarning, NotContainedError, SeekingError
from seeking.forward import Forward, call
from seeking.matching.align import Places, align, differing_types, layer_positions, stage_places
from seeking.matching.axes import Space, size_of
from seeking.matching.dropout import differing_rates
from seeking.matching.joined import leave_out_extra_parts, let_layers_grow
from seeking.matching.model_axes import ModelAxes
from seeking.matching.overrides import Override, check_names, read_positions
from seeking.matching.selection import Selection
from seeking.matching.solve import Dimension, solve, value
from seeking.option_types import check_word
from seeking.supported import check_models
from seeking.weights_map import Entry, Index, WeightsMap, tensors


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
    base has are chosen by the width policy. The result is a proposal: ``seeking.verify`` proves it.

    Warnings (``MatchWarning``) tell of a model that cannot be run without data, and runs with its numbers or, on the
    meta device, is matched by names, shapes and the rules for modules (see ``seeking.matching.module_rules``); of
    operations on channels that grow which are not known to be elementwise; and of layers that drop out at different
    rates.

    Args:
        base: the smaller model; it may be on the meta device.
        motivated: the larger model; it may be on the meta device.
        batch: one input, as ``forward`` takes it; only shapes and integers matter. If not given, one is made for
            models of timm and transformers, and for those whose first layer tells.
        forward: runs a model on the batch. The default calls ``model(batch)``, ``model(*batch)`` for a tuple or
            list, ``model(**batch)`` for a mapping.
        depth: blocks of a longer stage that are the base's: the ``leading`` ones, or ``spread`` over the stage.
        width: positions of a larger space that are the base's: the ``leading`` ones, or at ``even`` distance.
        overrides: what the user knows better, by name of a base tensor or module.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: an unknown policy, an override that does not fit the models, or a batch on which the base does not
            run.
    """
    for kind, policy, known in (("depth policy", depth, DepthPolicy), ("width policy", width, WidthPolicy)):
        check_word(kind, policy, known)
    overrides = overrides or {}
    counterparts = aligned(base, motivated, depth, overrides)
    if differing := differing_rates(base, motivated, counterparts):
        _warn(
            f"dropout or stochastic depth differs in {len(differing)} shared layers ({differing[0]}"
            + (", …" if len(differing) > 1 else "")
            + "): what the models share is trained at two rates. Give both models the same rates if that is not meant."
        )
    places = stage_places(base, motivated, counterparts)
    targets = _targets(base, motivated, counterparts, places, overrides)
    forward = stateless(forward)
    axes, doubt = _axes(base, motivated, batch, forward)
    if doubt:
        _warn(doubt)
    small, large = tensors(base), tensors(motivated)
    positions = {
        name: read_positions(name, small[name], o.index) for name, o in overrides.items() if o.index is not None
    }
    chosen_alone = {
        (name, dim)
        for name, of_dimensions in positions.items()
        for dim, chosen in enumerate(of_dimensions)
        if chosen is not None and not overrides[name].space
    }
    try:
        sizes, layers = _sizes(base, motivated, axes, targets, counterparts, places, chosen_alone)
    except NotContainedError as error:
        raise _with_remark(error, axes, batch) from None
    if assumed := _resized(axes, sizes):
        _warn(f"treated as elementwise: {', '.join(assumed)}; seeking.verify tells whether rightly")
    return WeightsMap(
        _entries(small, large, axes, targets, Selection(sizes, width, layers), overrides, positions),
        {name: tuple(tensor.shape) for name, tensor in large.items()},
        buffers=(name for name, _ in motivated.named_buffers(remove_duplicate=False)),
    )


def aligned(
    base: nn.Module, motivated: nn.Module, depth: DepthPolicy, overrides: Mapping[str, Override]
) -> dict[str, str]:
    """The motivated model's module for each of the base's, by name. No model is run, so both may be on the meta device.

    Args:
        base: the smaller model.
        motivated: the larger model.
        depth: as for ``match``.
        overrides: as for ``match``.

    Raises:
        NotContainedError: a stage of the base is longer than the motivated model's, or a module is missing there.
        SeekingError: a model is not supported, or an override names nothing in the base.
    """
    check_models(base, motivated)
    check_names(overrides, base)
    _compare_classes(base, motivated)
    modules = {name for name, _ in base.named_modules(remove_duplicate=False)}
    renames = {name: o.target for name, o in overrides.items() if o.target and name in modules}
    return align(base, motivated, depth, renames)


def _entries(
    small: Mapping[str, Tensor],
    large: Mapping[str, Tensor],
    axes: ModelAxes,
    targets: Mapping[str, str],
    selection: Selection,
    overrides: Mapping[str, Override],
    positions: Mapping[str, Sequence[Index | None]],
) -> dict[str, Entry]:
    """The entry of each tensor of the base.

    Args:
        small: the base's tensors by name.
        large: those of the motivated model.
        axes: what their dimensions are made of.
        targets: the name of the target of each tensor of the base.
        selection: chooses the positions of each channel space.
        overrides: of the user.
        positions: those that overrides choose, for each dimension of a tensor; of one dimension or of its space.
    """
    for name, of_dimensions in positions.items():
        for dim, chosen in enumerate(of_dimensions):
            if chosen is not None and overrides[name].space:
                selection.pin(f"{name}, dimension {dim}", axes.motivated(targets[name])[dim], chosen)
    entries = {}
    for name, tensor in small.items():
        target = targets[name]
        target_axes, shape = axes.motivated(target), large[target].shape
        own = positions[name] if name in positions and not overrides[name].space else [None] * tensor.ndim
        index = tuple(
            selection.index(axis, size, target_size) if chosen is None else chosen
            for chosen, axis, size, target_size in zip(own, target_axes, tensor.shape, shape, strict=True)
        )
        origin = "user" if name in overrides or selection.is_pinned(target_axes) else axes.origin[target]
        entries[name] = Entry(target, index, tuple(shape), origin)
    return entries


def _axes(base: nn.Module, motivated: nn.Module, batch: Any, forward: Forward | None) -> tuple[ModelAxes, str]:
    """What the tensors' dimensions are made of, and a sentence about it if that does not hold for every batch."""
    axes = ModelAxes(base, motivated, batch, forward)
    if not axes.untraceable:
        return axes, ""
    name, reason = type(base).__name__, axes.untraceable
    if not any(tensor.is_meta for model in (base, motivated) for tensor in tensors(model).values()):
        with_numbers = ModelAxes(base, motivated, batch, forward, numbers=True)
        if not with_numbers.untraceable:
            return with_numbers, (
                f"{name}: the channel spaces are those that one forward pass of each model shows, since it cannot be "
                f"run without data ({reason}); other batches may take other branches"
            )
        if batch is not None:
            _check_accepted(base, batch, forward)
    return axes, (
        f"{name}: the channel spaces are unknown, since the model cannot be run without data ({reason}). Dimensions "
        "are matched by names, shapes and rules; seeking.verify tells whether rightly."
    )


def _check_accepted(base: nn.Module, batch: Any, forward: Forward | None) -> None:
    """Make sure that it is not the batch why the base could not be traced: nothing could be proven on it either.

    Raises:
        SeekingError: the base does not run on it.
    """
    model = scratch_copy(base)
    with inspecting(model):
        try:
            (forward or call)(model, copied(batch))
        except Exception as error:
            refusal = SeekingError(
                f"the base ({type(base).__name__}) does not run on the batch, in evaluation mode: "
                f"{type(error).__name__}: {error}"
            )
            # As a note: who uses the command gives neither.
            refusal.add_note(
                "Give what it takes alone, without labels, or how to run it, such as forward=lambda model, batch: "
                "model(batch[0])"
            )
            raise refusal from error


def _with_remark(error: NotContainedError, axes: ModelAxes, batch: Any) -> NotContainedError:
    """A refusal with what it is based on, if that is less than the user's own batch."""
    if batch is not None:
        return error
    if axes.untraceable:
        return NotContainedError(f"{error}. Names and shapes alone tell so; give match a batch")
    if axes.example_shape:
        shape = axes.example_shape
        return NotContainedError(f"{error}. The models were run on an input of shape {shape}; give match a batch")
    return error


def _warn(message: str) -> None:
    warnings.warn(message, MatchWarning, stacklevel=3)


def _compare_classes(base: nn.Module, motivated: nn.Module) -> None:
    small, large = getattr(base, "num_classes", None), getattr(motivated, "num_classes", None)
    if None not in (small, large) and small != large:
        raise NotContainedError(f"different numbers of classes: the base has {small}, the motivated model {large}")


def _targets(
    base: nn.Module,
    motivated: nn.Module,
    counterparts: Mapping[str, str],
    places: Places,
    overrides: Mapping[str, Override],
) -> dict[str, str]:
    """The motivated model's tensor for each of the base's, by name."""
    large = tensors(motivated)
    buffers = dict(base.named_buffers(remove_duplicate=False))
    targets = {}
    for name, tensor in tensors(base).items():
        module, _, leaf = name.rpartition(".")
        counterpart = counterparts[module]
        lists = base.get_submodule(module), motivated.get_submodule(counterpart)
        if all(isinstance(each, nn.ParameterList) for each in lists):
            own = layer_positions(places, *(len(each) for each in lists))  # type: ignore[arg-type]
            leaf = str(own[int(leaf)]) if own else leaf
        target = overrides.get(name, Override()).target or (f"{counterpart}.{leaf}" if counterpart else leaf)
        remark = differing_types(base, motivated, module, counterpart)
        if target not in large:
            if name in buffers and getattr(motivated.get_submodule(counterpart), leaf, "") is None:
                remark = "; it is None there so far: if the first forward pass makes it, run both models once before"
            raise NotContainedError(f"{name}: the motivated model has no tensor {target}{remark}")
        if tensor.ndim != large[target].ndim:
            raise NotContainedError(
                f"{name}: {tensor.ndim} dimensions in the base, {large[target].ndim} in {target}{remark}"
            )
        targets[name] = target
    return targets


def _sizes(
    base: nn.Module,
    motivated: nn.Module,
    axes: ModelAxes,
    targets: Mapping[str, str],
    counterparts: Mapping[str, str],
    places: Places,
    chosen_alone: Container[tuple[str, int]],
) -> tuple[dict[Space, int], dict[Space, Index]]:
    """How much of each space of the motivated model is the base's, and where it lies in those of one entry a layer."""
    small = tensors(base)
    dimensions = [
        Dimension(f"{name}, dimension {dim}", size, axis, own_axis)
        for name, tensor in small.items()
        for dim, (size, axis, own_axis) in enumerate(
            zip(tensor.shape, axes.motivated(targets[name]), axes.base(name), strict=True)
        )
        if (name, dim) not in chosen_alone
    ]
    dimensions = [d for d in dimensions if d.size or d.axis]
    layers = let_layers_grow(dimensions, places)
    try:
        return solve(dimensions), layers
    except NotContainedError as error:
        if leave_out_extra_parts(dimensions, places):
            with contextlib.suppress(NotContainedError):
                return solve(dimensions), layers
        name = str(error).partition(",")[0]
        module = name.rpartition(".")[0]
        remark = differing_types(base, motivated, module, counterparts.get(module, "")) if name in small else ""
        raise NotContainedError(f"{error}{remark}") from None


def _resized(axes: ModelAxes, sizes: Mapping[Space, int]) -> list[str]:
    """The operations assumed to be elementwise that see channels of which the base has only a part."""
    return sorted(
        name
        for name, input_axes in axes.assumed.items()
        if any(value(axis, sizes) not in (None, size_of(axis)) for axis in input_axes)
    )
