"""Prove that the base model is a sub-network of the motivated model."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map

from seeking.errors import SeekingError
from seeking.weights_map import Entry, WeightsMap, tensors


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    Attributes:
        exact: whether the motivated model, holding the base and nothing else, computes the base's function, layer by
            layer.
        difference: greatest difference of the outputs, relative to the base's greatest output.
        layer: the first layer of the base, in the order of the forward pass, at which the two differ.
        reason: one sentence for people.
    """

    exact: bool
    difference: float
    layer: str | None
    reason: str

    def __bool__(self) -> bool:
        return self.exact


def verify(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    batch: Any,
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> Verification:
    """Compare the base with the motivated model that holds the base's weights and no other.

    Compared are the outputs and, layer by layer, what lies before them: a deep network of random weights may give all
    but the same output whatever it is shown. Both models get the same random weights, so that no fresh initialisation
    (scales of one, biases of zero) can hide an error; the extra capacity is set to zero, which makes extra input
    channels contribute nothing and extra residual blocks the identity. Norms over the channels of one position
    (LayerNorm, RMSNorm) that are wider in the motivated model take their statistics over the base's channels only.
    The models run in evaluation mode, half precision raised to single, and are left as they were. What the batch does
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
    run = forward or _call
    batch = tree_map(_full, batch)

    weights = _random_weights(base, seed)
    # Batch normalisation divides by the variance: it stays as it is where nothing is mapped.
    blank = {
        name: tensor.clone()
        if name.endswith("running_var") or not tensor.is_floating_point()
        else torch.zeros_like(tensor, dtype=_full(tensor).dtype)
        for name, tensor in tensors(motivated).items()
    }
    norms = _partial_norms(base, weights_map)
    shapes: dict[str, torch.Size] = {}
    small, large = _Record(), _Record()
    watched = _counterparts(weights_map)
    with torch.no_grad(), _evaluation(base), _evaluation(motivated):
        with _holding(base, weights), small.watching(base, watched), _noting_shapes(base, norms, shapes):
            try:
                run(base, batch)
            except Exception as error:
                raise SeekingError(f"the base model refuses the input: {error}") from error
        blank = weights_map.embed(weights, blank)
        narrow = _normalising_mapped(base, motivated, norms, shapes)
        with _holding(motivated, blank), narrow, large.watching(motivated, watched.values()):
            try:
                run(motivated, batch)
            except Exception as error:
                return Verification(False, float("inf"), None, f"the motivated model refuses the input: {error}")

    difference, problem = _compare_outputs(small.outputs[""], large.outputs[""])
    before = None
    for name, ours in small.in_order():
        theirs = large.take(watched[name])
        if theirs is None:
            apart = f"{name}: its counterpart {watched[name]} is not run"
        else:
            theirs = _restrict(base.get_submodule(name), ours, theirs, weights_map.entries[f"{name}.weight"])
            if theirs is None:
                continue
            if (gap := _gap(ours, theirs)) <= tolerance:
                before = name
                continue
            apart = f"{name} in the base and {watched[name]} in the motivated model differ by {gap:.1e}"
        reason = f"{apart}; " + (f"{before}, run before it, agrees" if before else "it is the first layer compared")
        return Verification(False, difference, name, reason)
    if difference > tolerance:
        reason = f"{problem} after {before}, the last layer compared, which agrees" if before else problem
        return Verification(False, difference, None, reason)
    return Verification(True, difference, None, f"exact: greatest relative difference {difference:.1e}")


def _full(value: Any) -> Any:
    """In float32 what is in half precision."""
    half = isinstance(value, Tensor) and value.is_floating_point() and value.element_size() < 4
    return value.float() if half else value


def _call(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


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
        drawn[id(tensor)] = _full(value.to(tensor.device) if tensor.is_floating_point() else value)
    return {name: drawn[id(tensor)] for name, tensor in tensors(model).items()}


@contextlib.contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


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


class _Record:
    """Outputs of modules, in the order in which they ran."""

    def __init__(self) -> None:
        self.outputs: dict[str, Any] = {}
        self._runs: list[tuple[str, Tensor]] = []
        self._taken: dict[str, int] = {}

    @contextlib.contextmanager
    def watching(self, model: nn.Module, names: Any) -> Iterator[None]:
        def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if isinstance(output, Tensor) and name:
                    self._runs.append((name, output.detach()))
                self.outputs[name] = output

            return hook

        handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in {"", *names}]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def in_order(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._runs

    def take(self, name: str) -> Tensor | None:
        """The next output of a module that has not been taken yet."""
        outputs = [output for run, output in self._runs if run == name]
        place = self._taken.get(name, 0)
        self._taken[name] = place + 1
        return outputs[place] if place < len(outputs) else None


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
    return theirs.index_select(dim, torch.tensor(list(weight.index[rows]), device=theirs.device))


def _gap(ours: Tensor, theirs: Tensor) -> float:
    """Greatest difference relative to the greatest entry."""
    if ours.shape != theirs.shape:
        return float("inf")
    if not ours.numel():
        return 0.0
    ours, theirs = ours.double(), theirs.double()
    gap = float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-30))
    return gap if gap == gap else float("inf")


def _flatten(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in _flatten(value)]
    if isinstance(output, (tuple, list)):
        return [tensor for value in output for tensor in _flatten(value)]
    return []


def _compare_outputs(ours: Any, theirs: Any) -> tuple[float, str]:
    left, right = _flatten(ours), _flatten(theirs)
    if not left:
        raise SeekingError(f"the base model's output holds no tensor to compare: it is a {type(ours).__name__}")
    if [t.shape for t in left] != [t.shape for t in right]:
        return float("inf"), (
            f"the outputs have different shapes, {[list(t.shape) for t in left]} in the base "
            f"and {[list(t.shape) for t in right]} in the motivated model,"
        )
    difference = max(map(_gap, left, right))
    return difference, f"the outputs differ by {difference:.1e}"


def _partial_norms(base: nn.Module, weights_map: WeightsMap) -> dict[str, tuple[str, Tensor]]:
    """Base norms that are wider in the motivated model: their counterparts' names and where the base's channels are.

    Batch norms treat each channel for itself and need nothing.
    """
    found = {}
    for name, entry in weights_map.entries.items():
        owner, _, leaf = name.rpartition(".")
        module = base.get_submodule(owner)
        normalises = "Norm" in type(module).__name__ and not isinstance(module, (_NormBase, nn.GroupNorm))
        if leaf == "weight" and len(entry.shape) == 1 and not entry.whole and normalises:
            found[owner] = entry.target.rpartition(".")[0], torch.tensor(list(entry.index[0]))
    return found


@contextlib.contextmanager
def _noting_shapes(model: nn.Module, names: Iterable[str], shapes: dict[str, torch.Size]) -> Iterator[None]:
    """Note the shapes of modules' first inputs."""

    def hook(name: str) -> Callable[[nn.Module, Any], None]:
        def note(module: nn.Module, inputs: Any) -> None:
            shapes[name] = inputs[0].shape

        return note

    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _normalising_mapped(
    base: nn.Module,
    motivated: nn.Module,
    norms: Mapping[str, tuple[str, Tensor]],
    shapes: Mapping[str, torch.Size],
) -> Iterator[None]:
    """Norms take their statistics over the base's channels only, and give zero elsewhere.

    The base's layer does it, with what the motivated model's layer holds for these channels.
    """

    def hook(small: nn.Module, shape: torch.Size, index: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
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

    handles = [
        motivated.get_submodule(target).register_forward_hook(hook(base.get_submodule(name), shapes[name], index))
        for name, (target, index) in norms.items()
        if name in shapes
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
