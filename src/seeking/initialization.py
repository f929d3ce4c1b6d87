"""Initialize one of the two models from the other's weights."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seeking.block_copies import copy_blocks, warn_of_kept
from seeking.choices import Extra
from seeking.copies import copied, inspecting, random_state_preserved, scratch_copy, stateless
from seeking.deterministic import Deterministic
from seeking.errors import MatchWarning, SeekingError
from seeking.extra_blocks import ExtraBlocks
from seeking.extra_channels import restore_custom_matrices, without_reading_extra
from seeking.forward import Forward, call
from seeking.matching import match
from seeking.matching.example_inputs import example_inputs
from seeking.option_types import check_word
from seeking.supported import check_map, check_models, check_numbers, check_writable
from seeking.verification.compare import compare_outputs
from seeking.verification.constants import own_constants
from seeking.verification.extra import extra_modules
from seeking.verification.shareable import check_parametrizations
from seeking.weights_map import WeightsMap, tensors

TOLERANCE = 1e-4
"""Relative difference up to which two models' outputs count as those of one function, in float32."""


def extract(
    motivated: nn.Module,
    base: nn.Module,
    weights_map: WeightsMap | None = None,
    *,
    batch: Any = None,
    forward: Forward | None = None,
) -> WeightsMap:
    """Initialize the base with its part of the motivated model's weights.

    Of tensors that the map does not share (``WeightsMap.without``), the base gets the motivated model's; a warning says
    so.

    From a pretrained large model this is weight selection (Xu et al., "Initializing Models with Larger Ones",
    arXiv 2311.18823), with the selection that the map makes: ``match(..., width="even")`` is theirs.

    Args:
        motivated: the larger model; left as it is.
        base: the smaller model; its parameters and buffers are overwritten, but for constants of its own.
        weights_map: where the base lies; derived by ``seeking.match`` if not given.
        batch: one input, as ``forward`` takes it, on which is seen which buffers training changes; if not given, one is
            made where the models tell what they take.
        forward: runs a model on the batch; as in ``seeking.match``.

    Returns:
        The map.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: the map is not one of these models, or a parameter of the motivated model is NaN.
    """
    check_models(base, motivated)
    check_writable(base, "base")
    if weights_map is None:
        weights_map = match(base, motivated, batch=batch, forward=forward)
    check_map(weights_map)
    weights_map.check(base, motivated)
    check_numbers(motivated, "motivated model")
    if weights_map.own:
        name, count = min(weights_map.own), len(weights_map.own)
        warnings.warn(
            f"{name}{f' and {count - 1} more tensors' if count > 1 else ''} of the base are its own, and not in the "
            "motivated model; what is extracted are the motivated model's, so this is not the base that was trained",
            MatchWarning,
            stacklevel=2,
        )
    constants = own_constants(base, motivated, weights_map, batch, forward)
    with torch.no_grad():
        values = weights_map.extract(tensors(motivated))
        _load(base, {name: tensor for name, tensor in values.items() if name not in constants})
    return weights_map


def embed(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap | None = None,
    *,
    extra: Extra = "neutral",
    batch: Any = None,
    forward: Forward | None = None,
) -> WeightsMap:
    """Initialize the motivated model with the base's weights.

    ``extra="neutral"`` is a function-preserving initialization: the motivated model computes the base's function,
    where that is possible, and can learn. Weights by which the base's channels would read extra ones are zero, and so
    is what an extra block adds; all other extra capacity keeps its own initialization. In each extra block, as few
    layers as possible are zeroed. Norms over all channels (LayerNorm, RMSNorm) see the extra ones, so that a wider
    model with them starts near the base at best; a ``MatchWarning`` tells how far from it. Nor can extra blocks that
    put their result through a norm preserve the function.

    Args:
        base: the smaller model; left as it is.
        motivated: the larger model; its mapped entries take the base's values, but for constants of its own.
        weights_map: where the base lies; derived by ``seeking.match`` if not given.
        extra: how the extra capacity is initialized: ``neutral``; of models that differ in depth alone ``copied``, each
            extra block from the base's last block before it in its stage; or as it is, with its ``own`` initialization.
        batch: one input, as ``forward`` takes it, on which the function is compared; if not given, one is made where
            the models tell what they take.
        forward: runs a model on the batch; as in ``seeking.verify``.

    Returns:
        The map.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: the map is not one of these models, a parameter of the base is NaN, an unknown ``extra`` or one
            that does not apply to them, or a batch that a model refuses; nothing has been changed.
    """
    check_word("kind of extra capacity", extra, Extra)
    check_models(base, motivated)
    check_writable(motivated, "motivated model")
    check_numbers(base, "base")
    if weights_map is None:
        weights_map = match(base, motivated, batch=batch, forward=forward)
    check_map(weights_map)
    weights_map.check(base, motivated)
    check_parametrizations(base, motivated, weights_map, extra=extra != "own")
    if extra == "copied":
        copy_blocks(scratch_copy(motivated), weights_map)  # Refused before anything is changed.
    with torch.no_grad():
        run = stateless(forward) or call
        example = _accepted_batch(base, motivated, batch, run) if extra == "neutral" else None
        constants = own_constants(base, motivated, weights_map, batch if example is None else example, forward)
        shared = {name: tensor for name, tensor in tensors(base).items() if name not in constants}
        difference = 0.0
        for by_rows in (False, True):
            values = copied(tensors(motivated))
            if extra == "neutral":
                values = without_reading_extra(motivated, weights_map, values, by_rows)
            values = weights_map.embed(shared, values)
            if example is not None:
                difference = _neutralize(base, motivated, weights_map, values, lambda model: _run(run, model, example))
            if math.isfinite(difference):
                break
        _load(motivated, values)
        if extra == "copied":
            warn_of_kept(copy_blocks(motivated, weights_map))
        if example is not None and difference > TOLERANCE:
            warnings.warn(
                "the initialization preserves the base's function only approximately: the outputs differ by "
                f"{difference:.1e}. Layers that look at all channels, such as norms over more channels than "
                "the base's, and extra blocks that do not add to their input allow no better.",
                MatchWarning,
                stacklevel=2,
            )
    return weights_map


def _neutralize(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    values: dict[str, Tensor],
    run: Callable[[nn.Module], Any],
) -> float:
    """Change values for the motivated model so that what is extra adds nothing.

    Args:
        base: left as it is.
        motivated: left as it is.
        weights_map: of the base in the motivated model.
        values: for each tensor of the motivated model, by name; changed.
        run: gives a model's output.

    Returns:
        How far the motivated model's output is then from the base's.
    """
    small, large = scratch_copy(base), scratch_copy(motivated)
    _load(large, values)
    with inspecting(small, large):
        _load(large, values)
        reference = run(small)
        zeroed = _without_extra_scales(large, weights_map, values)
        _load(large, zeroed)
        values.update(_silence_extra_blocks(large, weights_map, reference, lambda: run(large)))
        _restore_scales(large, values, zeroed, lambda: compare_outputs(reference, run(large))[0])
        with_zeros = run(large)

        def unseen(changed: dict[str, Tensor]) -> bool:
            _load(large, changed)
            same = compare_outputs(with_zeros, run(large))[0] <= TOLERANCE
            if not same:
                _load(large, {name: values[name] for name in changed})
            return same

        restore_custom_matrices(motivated, weights_map, values, unseen)
        return compare_outputs(reference, run(large))[0]


def _accepted_batch(base: nn.Module, motivated: nn.Module, batch: Any, run: Forward) -> Any:
    """A batch that both models accept; None, with a warning, if none can be made."""
    base, motivated = scratch_copy(base), scratch_copy(motivated)
    with inspecting(base, motivated):
        for example in [batch] if batch is not None else example_inputs(base):
            try:
                _run(run, base, example)
                _run(run, motivated, example)
            except Exception as error:
                if batch is not None:
                    raise SeekingError(f"the models refuse the batch: {type(error).__name__}: {error}") from error
            else:
                return example
    warnings.warn(
        f"{type(base).__name__}: no example input could be made for it, so that extra blocks keep their own "
        "initialization; give embed a batch",
        MatchWarning,
        stacklevel=3,
    )
    return None


def _run(run: Forward, model: nn.Module, batch: Any) -> Any:
    # A forward may change what is not trained, such as a queue or averaged weights, so that no two passes are alike.
    before = {name: tensor.clone() for name, tensor in tensors(model).items() if not tensor.requires_grad}
    # It may write into its batch, and draw random numbers, as many as it has channels.
    with Deterministic(), random_state_preserved(0):
        output = copied(run(model, copied(batch)))
    now = tensors(model)
    _load(model, {name: tensor for name, tensor in before.items() if name in now and now[name].shape == tensor.shape})
    return output


def _load(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, tensor in tensors(model).items():
        if name in values:
            tensor.copy_(values[name])


def _silence_extra_blocks(
    motivated: nn.Module, weights_map: WeightsMap, reference: Any, run: Callable[[], Any]
) -> dict[str, Tensor]:
    """Zero as few layers of each extra block as make it the identity or, where the model adds its input, zero.

    All of them are zeroed; then, in the order of the forward pass, one layer at a time gets its own weights back, in
    all blocks at once, and loses them again where its block is not the identity with them. Blocks that are not the
    identity though the output is the base's, as with an output of each block, are judged by the output.

    Args:
        motivated: holds the base's weights.
        weights_map: of the base in the motivated model.
        reference: the base's output.
        run: gives the motivated model's output.

    Returns:
        The parameters of the extra blocks, by name.
    """
    blocks = ExtraBlocks(motivated, extra_modules(motivated, weights_map))
    with blocks.watched():
        blocks.zero_all()
        silent: set[str] = set()
        if compare_outputs(reference, run())[0] <= TOLERANCE:
            blocks.may_be_zero = True
            run()
            # What they do to their input reaches nothing but extra blocks.
            silent = blocks.failing()
        rescaled: set[str] = set()
        while changing := blocks.failing() - rescaled - silent:
            # They may scale their input.
            blocks.scale_by_one(changing)
            rescaled |= changing
            run()
        for name in blocks.failing() - silent:
            for layer in blocks.modules[name].modules():
                blocks.restore(layer)
        passing = [name for name in blocks.modules if blocks.is_identity.get(name)]
        for turn in range(max((len(blocks.layers[name]) for name in passing), default=0)):
            restored = {name: blocks.layers[name][turn] for name in passing if turn < len(blocks.layers[name])}
            for layer in restored.values():
                blocks.restore(layer)
            run()
            for name, layer in restored.items():
                if not blocks.is_identity[name]:
                    blocks.silence(layer)
        for layer in (layer for name in sorted(silent) for layer in blocks.layers[name]):
            blocks.restore(layer)
            if compare_outputs(reference, run())[0] > TOLERANCE:
                blocks.silence(layer)
    return {
        f"{name}.{leaf}": parameter
        for name, block in blocks.modules.items()
        for leaf, parameter in block.named_parameters(remove_duplicate=False)
    }


def _without_extra_scales(
    motivated: nn.Module, weights_map: WeightsMap, values: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Vectors outside of layers, such as the weights of a sum of all layers' outputs, with zeros outside the map."""
    blocks = tuple(f"{name}." for name in extra_modules(motivated, weights_map))
    entries = {entry.target: entry for entry in weights_map.entries.values()}
    zeroed = {}
    for name, parameter in motivated.named_parameters(remove_duplicate=False):
        owner = type(motivated.get_submodule(name.rpartition(".")[0]))
        in_layer = owner.__module__.startswith("torch.nn.") and owner is not nn.ParameterList
        if parameter.ndim > 1 or in_layer or name.startswith(blocks):
            continue
        value = torch.zeros_like(parameter)
        if name in entries:
            mesh = entries[name].mesh(parameter.device)
            value[mesh] = values[name][mesh]
        if not torch.equal(value, values[name]):
            zeroed[name] = value
    return zeroed


def _restore_scales(
    motivated: nn.Module, values: dict[str, Tensor], zeroed: dict[str, Tensor], differ: Callable[[], float]
) -> None:
    """Give as many vectors as possible their own entries back.

    Args:
        motivated: a copy that holds the values, and the zeroed vectors in their place.
        values: by name; where a vector must stay as it is, its value is replaced.
        zeroed: the vectors with zeros.
        differ: tells how far the outputs are from the base's.
    """
    without = differ() if zeroed else math.inf
    _load(motivated, {name: values[name] for name in zeroed})
    if without <= TOLERANCE < differ():
        _load(motivated, zeroed)
        for name, value in zeroed.items():
            _load(motivated, {name: values[name]})
            if differ() > TOLERANCE:
                values[name] = value
                _load(motivated, {name: value})
