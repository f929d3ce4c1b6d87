"""Prove that the base model is a sub-network of the motivated model."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map

from seeking.errors import SeekingError
from seeking.matching.trace import Forward, call, evaluation
from seeking.weights_map import Entry, WeightsMap, tensors, tensors_in

Runs = list[tuple[str, Any]]
"""Names of modules with their outputs, in the order in which they ran."""


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    Attributes:
        exact: whether the motivated model, holding the base and nothing else, computes the base's function, layer by
            layer.
        difference: greatest difference of the outputs, relative to the base's greatest output.
        layer: the first layer of the base, in the order of the forward pass, at which the two differ.
        reason: one sentence for people.
        contained: False where no map between these two models can be exact: what differs is not which weights are
            shared, but something that the motivated model does besides.
    """

    exact: bool
    difference: float
    layer: str | None
    reason: str
    contained: bool = True

    def __bool__(self) -> bool:
        return self.exact


def verify(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    batch: Any,
    *,
    forward: Forward | None = None,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> Verification:
    """Compare the base with the motivated model that holds the base's weights and no other.

    Compared are the outputs and, layer by layer, what lies before them: a deep network of random weights may give all
    but the same output whatever it is shown. Both models get the same random weights, so that no fresh initialisation
    (scales of one, biases of zero) can hide an error; the extra capacity is set to zero, which makes extra input
    channels contribute nothing and extra residual blocks the identity. Norms over the channels of one position
    (LayerNorm, RMSNorm, GroupNorm) that are wider in the motivated model take their statistics over the base's
    channels only. The models run in evaluation mode, in single precision at least and, where that shows a difference,
    in double, and are left as they were. What the batch does
    not reach, such as rows of an embedding that it does not name, is not judged.

    Args:
        base: the smaller model.
        motivated: the larger model.
        weights_map: the map to be judged.
        batch: one input, as ``forward`` takes it.
        forward: runs a model on the batch. The default calls ``model(batch)``, ``model(*batch)`` for a tuple or
            list, ``model(**batch)`` for a mapping.
        tolerance: greatest relative difference that counts as exact.
        seed: of the random weights.

    Raises:
        SeekingError: the map is not one of these models, or the base refuses the input.
    """
    missing = tensors(base).keys() - weights_map.entries.keys()
    if missing:
        name = min(missing)
        return Verification(False, float("inf"), name.rpartition(".")[0], f"the map has no entry for {name}")
    weights_map.check(base, motivated)
    if any(tensor.is_meta for model in (base, motivated) for tensor in tensors(model).values()):
        raise SeekingError("a model is on the meta device; verify computes, so make both models with real weights")
    run = forward or call
    verdict = _compare(base, motivated, weights_map, batch, run, tolerance, seed, torch.float32)
    if not verdict:
        # Rounding may be all that differs. Some models insist on single precision.
        with contextlib.suppress(Exception):
            return _compare(base, motivated, weights_map, batch, run, tolerance, seed, torch.float64)
    return verdict


def _compare(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    batch: Any,
    run: Forward,
    tolerance: float,
    seed: int,
    dtype: torch.dtype,
) -> Verification:
    weights = _raised(_random_weights(base, seed), dtype)

    def output(model: nn.Module) -> Any:
        # Fresh copies and the same noise for each: a forward may write into its batch, or drop out.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return run(model, _copied(_raised(batch, dtype)))

    watched = _counterparts(weights_map)
    extra = extra_modules(motivated, weights_map)
    small: Runs = []
    with torch.no_grad(), evaluation(base), evaluation(motivated):
        with _holding(base, _copied(weights)), _hooks(base, _recording(small, ["", *watched])):
            try:
                small.append(("", output(base)))
            except Exception as error:
                raise SeekingError(f"the base model refuses the input: {error}") from error
        narrow = _narrowed_norms(base, weights_map, small)
        verdicts = []
        for scale in (0.0, 1.0):
            large: Runs = []
            held = weights_map.embed(weights, _raised(_neutral(motivated, extra, scale), dtype))
            watching = _recording(large, ["", *watched.values()]), _recording(large, extra, with_input=True)
            with _holding(motivated, held), _hooks(motivated, narrow), _hooks(motivated, *watching):
                try:
                    large.append(("", output(motivated)))
                except Exception as error:
                    reason = f"the motivated model refuses the input: {error}"
                    return Verification(False, float("inf"), None, reason, contained=False)
            verdicts.append(_judge(base, motivated, weights_map, small, large, tolerance))
            if verdicts[-1].exact or verdicts[-1].contained:
                return verdicts[-1]
    return verdicts[0]


def _judge(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, small: Runs, large: Runs, tolerance: float
) -> Verification:
    """Compare what was recorded, layer by layer and at the end."""
    watched = _counterparts(weights_map)
    extra = set(extra_modules(motivated, weights_map))
    runs: dict[str, list[tuple[int, Any]]] = {}
    for place, (name, output) in enumerate(large):
        runs.setdefault(name, []).append((place, output))
    before, passed = "", -1

    def apart(words: str, layer: str | None, end: int, why: str = "") -> Verification:
        words += f"; {before}, run before it, agrees" if before else "; it is the first layer compared"
        # What ran in between, or, beside a shortcut, in the block of the layer that still agrees.
        block = watched.get(before, "").rpartition(".")[0] + "."
        suspects = [
            run
            for place, run in enumerate(large[:end])
            if run[0] in extra and (place > passed or (block != "." and run[0].startswith(block)))
        ]
        why = _obstacle(motivated, suspects, tolerance) or why
        return Verification(False, difference, layer, f"{words}: {why}" if why else words, contained=not why)

    # Of a forward of the user's own, such as one to a loss, the model's output says more than what it returns.
    difference, problem = compare_outputs(*(next(out for name, out in some if not name) for some in (small, large)))
    for name, ours in small:
        if not name or not isinstance(ours, Tensor):
            continue
        if not runs.get(watched[name]):
            return apart(f"{name}: its counterpart {watched[name]} is not run", name, len(large))
        place, whole = runs[watched[name]].pop(0)
        theirs = _restrict(base.get_submodule(name), ours, whole, weights_map.entries[f"{name}.weight"])
        if theirs is None:
            continue
        gap = relative_difference(ours, theirs)
        if gap > tolerance:
            words = f"{name} in the base and {watched[name]} in the motivated model differ by {gap:.1e}"
            settings = (_settings(base, motivated, one, watched[one]) for one in (before, name) if one)
            return apart(words, name, place, next(filter(None, settings), _factor(ours, theirs, tolerance)))
        before, passed = name, place
    if difference > tolerance:
        return apart(problem, None, len(large))
    return Verification(True, difference, None, f"exact: greatest relative difference {difference:.1e}")


def _neutral(motivated: nn.Module, extra: Iterable[str], scale: float) -> dict[str, Tensor]:
    """Tensors that contribute nothing; in extra modules, vectors that scale have this value.

    Zero lets most blocks hand their input through; one does where the input itself is scaled (MetaFormers).
    """
    scales = {id(parameter) for name in extra if scale for parameter in scaling(motivated.get_submodule(name))}
    made: dict[int, Tensor] = {}
    for name, tensor in tensors(motivated).items():
        if id(tensor) not in made:
            # Batch normalisation divides by the variance: it stays as it is where nothing is mapped.
            stays = name.endswith("running_var") or not (tensor.is_floating_point() or tensor.is_complex())
            value = scale if id(tensor) in scales else 0.0
            made[id(tensor)] = tensor.clone() if stays else torch.full_like(tensor, value)
    return {name: made[id(tensor)] for name, tensor in tensors(motivated).items()}


def _raised(values: Any, dtype: torch.dtype) -> Any:
    """All real tensors in this precision at least; one tensor under two names stays one."""
    made: dict[int, Tensor] = {}

    def raised(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return made.setdefault(id(value), value.to(torch.promote_types(value.dtype, dtype)))

    return tree_map(raised, values)


def _copied(values: Any) -> Any:
    copies: dict[int, Tensor] = {}
    return tree_map(lambda t: copies.setdefault(id(t), t.clone()) if isinstance(t, Tensor) else t, values)


def _random_weights(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights of sizes that keep signals alive, without the symmetry of an initialisation; constants stay."""
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    drawn: dict[int, Tensor] = {}
    for name, tensor in tensors(model).items():
        if id(tensor) in drawn:
            continue
        leaf = name.rpartition(".")[2]
        noise = torch.randn(tensor.shape, generator=generator)
        if name in parameters and leaf.endswith("weight"):
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
            value = noise * fan_in**-0.5 if tensor.ndim > 1 else noise.sigmoid() + 0.5
        elif name in parameters or leaf == "running_mean":
            value = noise * 0.3
        elif leaf == "running_var":
            value = noise.sigmoid() + 0.5
        elif tensor.is_floating_point():
            value = tensor.detach() * (noise.sigmoid() + 0.5).to(tensor)  # A constant, zeros and infinities stay.
        else:
            value = tensor.detach().clone()
        drawn[id(tensor)] = value.to(tensor)
    return {name: drawn[id(tensor)] for name, tensor in tensors(model).items()}


@contextlib.contextmanager
def _holding(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with other tensors in place of its own."""
    own = [(tensor, tensor.data) for tensor in tensors(model).values()]
    try:
        for name, tensor in tensors(model).items():
            tensor.data = values[name]
        yield
    finally:
        for tensor, data in own:
            tensor.data = data


@contextlib.contextmanager
def _hooks(model: nn.Module, *hooks: Mapping[str, Callable[[nn.Module, Any, Any], Any]]) -> Iterator[None]:
    """The model with forward hooks on modules, by name."""
    handles = [model.get_submodule(name).register_forward_hook(hook) for some in hooks for name, hook in some.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _recording(
    runs: Runs, names: Iterable[str], with_input: bool = False
) -> dict[str, Callable[[nn.Module, Any, Any], None]]:
    """Hooks that append each module's outputs, in the order in which they come; the root's name is empty."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            # A copy, for what is changed in place later.
            seen = (inputs, output) if with_input else output
            runs.append((name, _copied(seen)))

        return record

    return {name: hook(name) for name in names}


def scaling(block: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of a block that scale channels, those of norms aside."""
    for module in block.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < 2 and "bias" not in name and "Norm" not in type(module).__name__:
                yield parameter


def extra_modules(motivated: nn.Module, weights_map: WeightsMap) -> list[str]:
    """The outermost modules of the motivated model that hold nothing of the base, such as extra blocks."""
    shared = {""}
    for entry in weights_map.entries.values():
        path = entry.target.split(".")
        shared.update(".".join(path[:end]) for end in range(1, len(path)))
    return [
        name
        for name, module in motivated.named_modules()
        if name not in shared
        and name.rpartition(".")[0] in shared
        and next(itertools.chain(module.parameters(), module.buffers()), None) is not None
    ]


def _obstacle(motivated: nn.Module, runs: Runs, tolerance: float) -> str:
    """What of the extra modules that ran does not let its input through."""
    for name, (given, output) in runs:
        before, after = tensors_in(given), tensors_in(output)
        if before and after and not relative_difference(before[0], after[0]) <= tolerance:
            kind = type(motivated.get_submodule(name)).__name__
            return f"{name} ({kind}), which only the motivated model has, changes its input even where it adds nothing"
    return ""


def _settings(base: nn.Module, motivated: nn.Module, name: str, place: str) -> str:
    """How two layers, or the blocks around them, differ that no weights can make up for."""
    while True:
        small, large = base.get_submodule(name), motivated.get_submodule(place)
        for setting, ours in vars(small).items():
            theirs = getattr(large, setting, None)
            number = type(ours) is type(theirs) in (float, bool) and setting != "momentum" and "drop" not in setting
            if (number or setting in ("stride", "padding", "dilation")) and ours != theirs:
                owner = name or type(small).__name__
                return f"{owner}.{setting} is {ours} in the base and {theirs} in the motivated model"
        for child, module in small.named_children():
            other = getattr(large, child, None)
            bare = not tensors(module) and isinstance(other, nn.Module) and not tensors(other)
            if bare and type(module) is not type(other) and "drop" not in child:
                kinds = f"{type(module).__name__} in the base and {type(other).__name__} in the motivated model"
                return f"{name}.{child} is {kinds}".removeprefix(".")
        if not name or not place:
            return ""
        name, place = name.rpartition(".")[0], place.rpartition(".")[0]


def _factor(ours: Tensor, theirs: Tensor, tolerance: float) -> str:
    """Whether one tensor is a multiple of the other."""
    if ours.shape != theirs.shape or ours.is_complex():
        return ""
    ours, theirs = ours.double(), theirs.double()
    factor = float((ours * theirs).sum() / (theirs * theirs).sum().clamp_min(1e-30))
    if factor <= 0 or relative_difference(ours, factor * theirs) > tolerance:
        return ""
    return f"a constant factor, {factor:.4g}, that the forward pass takes from the size of the model"


def _counterparts(weights_map: WeightsMap) -> dict[str, str]:
    """For each base module that owns a ``weight`` the module that owns its target."""
    return {
        name.rpartition(".")[0]: entry.target.rpartition(".")[0]
        for name, entry in weights_map.entries.items()
        if name.rpartition(".")[2] == "weight" and "." in name
    }


def _restrict(module: nn.Module, ours: Tensor, theirs: Tensor, weight: Entry) -> Tensor | None:
    """The motivated layer's output at the base's channels; None where the weight does not tell which they are."""
    transposed = isinstance(module, nn.Embedding) or (isinstance(module, _ConvNd) and module.transposed)
    rows = 1 if transposed and len(weight.index) > 1 else 0
    dim = 1 if isinstance(module, (_ConvNd, _NormBase, nn.GroupNorm)) else -1
    sizes = [output.shape[dim] if output.ndim > 1 else 0 for output in (ours, theirs)]
    if not weight.index or sizes != [weight.shape[rows], weight.target_shape[rows]]:
        return None
    mapped = theirs.index_select(dim, weight.index[rows].tensor(theirs.device))
    # A norm within each head sees more heads, a convolution over channels more channels: later layers judge.
    return mapped if mapped.shape == ours.shape else None


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Greatest difference, relative to the greatest of the entries that differ, or to the median if that is more.

    Entries that are equal do not count, so that a constant, such as that of a mask, hides nothing.
    """
    if ours.shape != theirs.shape:
        return float("inf")
    if ours.is_complex() and theirs.is_complex():
        ours, theirs = torch.view_as_real(ours), torch.view_as_real(theirs)
    ours, theirs = ours.double(), theirs.double()
    differ = ours != theirs
    if not differ.any():
        return 0.0
    scale = max(float(ours[differ].abs().max()), float(ours.abs().median()))
    gap = float((ours - theirs)[differ].abs().max()) / max(scale, 1e-30)
    return gap if math.isfinite(gap) else float("inf")


def compare_outputs(ours: Any, theirs: Any) -> tuple[float, str]:
    """Greatest relative difference of two models' outputs, and a sentence about it."""
    left, right = ([t for t in tensors_in(o) if t.is_floating_point() or t.is_complex()] for o in (ours, theirs))
    if not left:
        raise SeekingError(
            f"the base model's output, a {type(ours).__name__}, holds no tensor of real or complex numbers to compare"
        )
    if len(left) == len(right):
        left, right = (list(side) for side in zip(*map(_comparable, left, right), strict=True))
    if [t.shape for t in left] != [t.shape for t in right]:
        return float("inf"), (
            f"the outputs have different shapes, {[list(t.shape) for t in left]} in the base "
            f"and {[list(t.shape) for t in right]} in the motivated model,"
        )
    difference = max(map(relative_difference, left, right))
    return difference, f"the outputs differ by {difference:.1e}"


def _comparable(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Two outputs, of which the motivated model's may be wider, as hidden states are: what it has more is zero.

    Where they are of one shape they are compared as they are, else by their sums and sums of squares.
    """
    wider = [dim for dim in range(min(ours.ndim, theirs.ndim)) if ours.shape[dim] < theirs.shape[dim]]
    if ours.ndim != theirs.ndim or not wider:
        return ours, theirs
    ours, theirs = (torch.stack([t.double().sum(wider), t.double().square().sum(wider)]) for t in (ours, theirs))
    return ours, theirs


def _narrowed_norms(
    base: nn.Module, weights_map: WeightsMap, runs: Runs
) -> dict[str, Callable[[nn.Module, Any, Tensor], Tensor | None]]:
    """Hooks for the motivated model's norms that are wider than the base's, by name.

    Batch norms treat each channel for itself and need nothing.
    """
    shapes = {name: output.shape for name, output in runs if isinstance(output, Tensor)}
    found = {}
    for name, entry in weights_map.entries.items():
        owner, _, leaf = name.rpartition(".")
        module = base.get_submodule(owner)
        torch_norm = isinstance(module, (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm))
        normalises = torch_norm or ("Norm" in type(module).__name__ and not isinstance(module, _NormBase))
        if leaf == "weight" and len(entry.shape) == 1 and not entry.whole and normalises and owner in shapes:
            place = entry.target.rpartition(".")[0]
            found[place] = _normalising_mapped(module, shapes[owner], entry.index[0].tensor())
    return found


def _normalising_mapped(
    small: nn.Module, shape: torch.Size, index: Tensor
) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
    """A hook that makes a norm take its statistics over the base's channels only, and give zero elsewhere.

    The base's layer, whose signal is of this shape, does it, with what the motivated model's layer holds for these
    channels.
    """

    def normalise(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        x: Tensor = inputs[0]
        wider = [dim for dim in range(x.ndim) if len(shape) == x.ndim and x.shape[dim] != shape[dim]]
        if len(wider) != 1 or shape[wider[0]] != len(index):
            return None
        at = index.to(x.device)
        own = dict(small.named_parameters(recurse=False)) | dict(small.named_buffers(recurse=False))
        held = {
            leaf: getattr(module, leaf).index_select(0, at)
            for leaf, tensor in own.items()
            if tensor.shape == index.shape
        }
        normalised = torch.func.functional_call(small, held, (x.index_select(wider[0], at),))
        return torch.zeros_like(x).index_copy_(wider[0], at, normalised)

    return normalise
