"""Start one of the two models from the other's weights."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from seeking.errors import SeekingError, unknown
from seeking.matching import MatchWarning, match
from seeking.matching.inputs import example_inputs
from seeking.matching.trace import Forward, call, evaluation
from seeking.verify import compare_outputs, extra_modules, scaling
from seeking.weights_map import Entry, WeightsMap, tensors, tensors_in

Extra = Literal["neutral", "own"]

NEAR = 1e-4
"""Relative difference of two models' outputs from which on they are not one function, in single precision."""


def extract(motivated: nn.Module, base: nn.Module, weights_map: WeightsMap | None = None) -> WeightsMap:
    """Start the base from the motivated model's weights, by cutting it out.

    From a pretrained large model this is weight selection (Xu et al., "Initializing Models with Larger Ones",
    arXiv 2311.18823), with the selection that the map makes: ``match(..., width="even")`` is theirs.

    Args:
        motivated: the larger model; left as it is.
        base: the smaller model; its parameters and buffers are overwritten.
        weights_map: where the base lies; derived by ``seeking.match`` if not given.

    Returns:
        The map.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: the map is not one of these models.
    """
    weights_map = weights_map or match(base, motivated)
    weights_map.check(base, motivated)
    with torch.no_grad():
        _load(base, weights_map.extract(tensors(motivated)))
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
    """Start the motivated model from the base's weights.

    With ``extra="neutral"`` the motivated model begins as the base's function, where that is possible, and can learn:
    weights by which the base's channels would read extra ones are zero, and so is what an extra block adds; all other
    extra capacity keeps the initialisation that it has. In each extra block as much as possible keeps it. Norms over
    all channels (LayerNorm, RMSNorm) see the extra ones, so that a wider model with them starts near the base at
    best; a warning tells how far from it. Extra blocks that put their result through a norm cannot be neutral, either.

    Args:
        base: the smaller model; left as it is.
        motivated: the larger model; its mapped entries take the base's values.
        weights_map: where the base lies; derived by ``seeking.match`` if not given.
        extra: what becomes of the extra capacity: ``neutral``, or its ``own`` initialisation as it is.
        batch: one input, as ``forward`` takes it, to find out what is neutral; if not given, one is made where the
            models tell what they take.
        forward: runs a model on the batch; as in ``seeking.verify``.

    Returns:
        The map.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: the map is not one of these models, an unknown ``extra``, or a batch that a model refuses;
            nothing has been changed.
    """
    if extra not in get_args(Extra):
        raise unknown("kind of extra capacity", extra, get_args(Extra))
    weights_map = weights_map or match(base, motivated, batch=batch, forward=forward)
    weights_map.check(base, motivated)
    with torch.no_grad():
        run = forward or call
        tried = _runnable(base, motivated, batch, run) if extra == "neutral" else None
        own = {name: tensor.clone() for name, tensor in tensors(motivated).items()}
        if extra == "neutral":
            own = _without_reading_extra(motivated, weights_map, own)
        _load(motivated, weights_map.embed(tensors(base), own))
        if tried is not None:
            with evaluation(base), evaluation(motivated):
                reference = run(base, tried)
                _let_input_through(motivated, weights_map, reference, lambda: run(motivated, tried))
                difference, _ = compare_outputs(reference, run(motivated, tried))
            if difference > NEAR:
                warnings.warn(
                    f"the motivated model starts as nearly the base's function only: their outputs differ by "
                    f"{difference:.1e}. Layers that look at all channels, such as norms over more channels than "
                    "the base's, and extra blocks that do not add to their input allow no better.",
                    MatchWarning,
                    stacklevel=2,
                )
    return weights_map


def _runnable(base: nn.Module, motivated: nn.Module, batch: Any, run: Forward) -> Any:
    """A batch that both models take; None, with a warning, if none can be made up."""
    with evaluation(base), evaluation(motivated):
        for one in [batch] if batch is not None else example_inputs(base):
            try:
                run(base, one)
                run(motivated, one)
            except Exception as error:
                if batch is not None:
                    raise SeekingError(f"the models refuse the batch: {type(error).__name__}: {error}") from error
            else:
                return one
    warnings.warn(
        f"{type(base).__name__}: no example input could be made for it, so that extra blocks keep their own weights; "
        "give embed a batch",
        MatchWarning,
        stacklevel=3,
    )
    return None


def _load(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, tensor in tensors(model).items():
        tensor.copy_(values[name])


def _without_reading_extra(
    motivated: nn.Module, weights_map: WeightsMap, values: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Values of the motivated model in which the base's channels take nothing from extra ones."""
    for entry in weights_map.entries.values():
        if entry.whole or len(entry.index) < 2:
            continue
        value = values[entry.target].clone()
        for written, read in _written_and_read(motivated, entry):
            extra = torch.ones(value.shape[read], dtype=torch.bool, device=value.device)
            extra[entry.index[read].tensor(value.device)] = False
            rows = entry.index[written].tensor(value.device)
            value.movedim((written, read), (0, 1))[rows.unsqueeze(1), extra.nonzero().squeeze(1)] = 0
        values[entry.target] = value
    return values


def _written_and_read(model: nn.Module, entry: Entry) -> list[tuple[int, int]]:
    """Pairs of dimensions of a weight, along the first of which its layer may write and along the second read."""
    module = model.get_submodule(entry.target.rpartition(".")[0])
    if isinstance(module, nn.Embedding):
        return [(1, 0)]
    if (isinstance(module, _ConvNd) and module.transposed) or type(module).__name__ == "Conv1D":
        return [(1, 0)]
    if isinstance(module, (nn.Linear, _ConvNd, nn.MultiheadAttention)):
        return [(0, 1)]
    # A matrix of someone's own may stand either way round: what mixes base and extra at all is zero.
    return list(itertools.permutations(range(len(entry.index)), 2))


def _let_input_through(motivated: nn.Module, weights_map: WeightsMap, reference: Any, run: Callable[[], Any]) -> None:
    """Zero as few layers of each extra block as make it hand its input through, or, added to its input, add nothing.

    All of them are zeroed; then, in the order of the forward pass, a layer at a time gets its own weights back, in all
    blocks at once, and loses them again where its block does not hand its input through with them.
    """
    blocks = {name: motivated.get_submodule(name) for name in extra_modules(motivated, weights_map)}
    own = {parameter: parameter.clone() for block in blocks.values() for parameter in block.parameters()}
    layers: dict[str, list[nn.Module]] = {name: [] for name in blocks}
    passes: dict[str, bool] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before, after = tensors_in((args, kwargs)), tensors_in(output)
            passes[name] = bool(before and after) and (
                torch.equal(before[0], after[0]) or (name in silent and not after[0].any())
            )

        return hook

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if module not in layers[name] and next(module.parameters(recurse=False), None) is not None:
                layers[name].append(module)

        return hook

    neutral: dict[nn.Parameter, float] = {}
    silent: set[str] = set()
    """Blocks that may put out zeros, since the model adds that to their input itself."""

    def restore(layer: nn.Module) -> None:
        for parameter in layer.parameters(recurse=False):
            parameter.copy_(own[parameter])

    def erase(layer: nn.Module) -> None:
        for parameter in layer.parameters(recurse=False):
            parameter.fill_(neutral[parameter])

    handles = [block.register_forward_hook(watch(name), with_kwargs=True) for name, block in blocks.items()]
    handles += [layer.register_forward_hook(note(name)) for name, block in blocks.items() for layer in block.modules()]
    try:
        for block in blocks.values():
            neutral.update(dict.fromkeys(block.parameters(), 0.0))
            for layer in block.modules():
                erase(layer)
        if compare_outputs(reference, run())[0] <= NEAR:
            silent.update(blocks)
            run()
        scaled: set[str] = set()
        while changing := {name for name in blocks if not passes.get(name)} - scaled:
            for name in changing:  # Its input may be scaled, too.
                neutral.update(dict.fromkeys(scaling(blocks[name]), 1.0))
                for layer in blocks[name].modules():
                    erase(layer)
            scaled |= changing
            run()
        for name, block in blocks.items():
            if not passes.get(name):  # Whatever its weights: it must do with its own.
                for layer in block.modules():
                    restore(layer)
        passing = [name for name in blocks if passes.get(name)]
        for turn in range(max((len(layers[name]) for name in passing), default=0)):
            restored = {name: layers[name][turn] for name in passing if turn < len(layers[name])}
            for layer in restored.values():
                restore(layer)
            run()
            for name, layer in restored.items():
                if not passes[name]:
                    erase(layer)
    finally:
        for handle in handles:
            handle.remove()
