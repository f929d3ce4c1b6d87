"""Pairs whose base is the first layers of the motivated model: one pass can serve both."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import copied, inspecting, random_state_preserved, scratch_copy, stateless
from seeking.forward import Forward, call
from seeking.gradients import add_gradients
from seeking.pair import NORM_STATISTICS
from seeking.verification.extra import extra_modules
from seeking.verification.recording import Records, hooks, recording
from seeking.verification.settings import counterparts
from seeking.verification.weights import promoted
from seeking.weights_map import WeightsMap, is_real, tensors, tensors_in

TOLERANCE = 1e-4
"""Difference, relative to the greatest entry of all, up to which gradients of one pass and of two count as the same."""


@dataclass(frozen=True)
class Prefix:
    """Modules of the base that put out what their counterparts in the motivated model do on the same batch.

    Attributes:
        modules: by the name of each such module of the base, the name of its counterpart.
    """

    modules: Mapping[str, str]

    @contextlib.contextmanager
    def recorded(self, motivated: nn.Module) -> Iterator[dict[str, Any]]:
        """Inside, a pass of the motivated model leaves what the modules put out, with its graph, in what this gives."""
        outputs: dict[str, Any] = {}

        def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
            return lambda module, inputs, output: outputs.update({name: output})

        with hooks(motivated, {counterpart: record(name) for name, counterpart in self.modules.items()}):
            yield outputs

    @contextlib.contextmanager
    def replayed(self, base: nn.Module, outputs: Mapping[str, Any]) -> Iterator[None]:
        """Inside, a pass of the base takes these outputs in place of running the modules.

        It runs those that the motivated model has left out on this batch, as models with layer drop do.
        """
        modules = {name: base.get_submodule(name) for name in self.modules if name in outputs}
        before = {name: vars(module).get("forward") for name, module in modules.items()}

        def replay(name: str) -> Callable[..., Any]:
            output = outputs[name]  # A list or a mapping may be changed by who gets it.
            return lambda *args, **kwargs: output if isinstance(output, Tensor) else copy.copy(output)

        try:
            for name, module in modules.items():
                vars(module)["forward"] = replay(name)
            yield
        finally:
            for name, module in modules.items():
                del vars(module)["forward"]
                if before[name] is not None:
                    vars(module)["forward"] = before[name]


def find_prefix(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, batch: Any, forward: Forward | None = None
) -> Prefix | None:
    """The prefix of a pair that differs in depth alone, all of whose base's blocks come before the extra ones.

    Copies of both models get other weights and run in evaluation mode. Modules count as the same if they are of one
    class with one configuration, all their weights are shared, and they put out the same on the batch. Then outputs and
    gradients of one pass are compared with those of two.

    Args:
        base: the smaller model; left as it is.
        motivated: the larger model; left as it is.
        weights_map: of the base in it; modules with tensors that each model keeps for itself are run by each.
        batch: one input.
        forward: runs a model on the batch; as in ``seeking.verify``.

    Returns:
        None if there is no such prefix.
    """
    blocks = _blocks(base, motivated, weights_map)
    if not blocks:
        return None
    run = stateless(forward) or call
    dtypes = {parameter.dtype for model in (base, motivated) for parameter in model.parameters()}
    if dtypes & {torch.bfloat16, torch.float16}:  # In which gradients of one pass and of two differ by rounding.
        with contextlib.suppress(Exception):  # Models may insist on their precision.
            copies = _with_other_weights(base, motivated, weights_map.shared, _single)
            return _prefix_of(
                *copies, weights_map, blocks, lambda model: run(model, promoted(copied(batch), torch.float32))
            )
    copies = _with_other_weights(base, motivated, weights_map.shared)
    return _prefix_of(*copies, weights_map, blocks, lambda model: run(model, copied(batch)))


def _prefix_of(
    small: nn.Module, large: nn.Module, weights_map: WeightsMap, blocks: list[str], run: Callable[[nn.Module], Any]
) -> Prefix | None:
    """The prefix of copies that share weights.

    Args:
        small: a copy of the base.
        large: a copy of the motivated model.
        weights_map: of the one in the other.
        blocks: of the base, which it must cover.
        run: runs a model on a batch of its own.
    """
    candidates = _candidates(small, large, weights_map.shared)
    records: tuple[Records, Records] = ([], [])
    with inspecting(small, large):
        for model, names, record in ((small, [*candidates], records[0]), (large, [*candidates.values()], records[1])):
            with hooks(model, recording(record, names)):
                run(model)
    chosen: dict[str, str] = {}
    for name, counterpart in candidates.items():
        mine, theirs = (
            [output for of, output in record if of == each]
            for record, each in zip(records, (name, counterpart), strict=True)
        )
        within = any(name.startswith(f"{outer}.") for outer in chosen)
        if not within and len(mine) == len(theirs) == 1 and _same(tensors_in(mine), tensors_in(theirs)):
            chosen[name] = counterpart
    prefix = Prefix(chosen)
    covered = all(any(f"{block}.".startswith(f"{name}.") for name in chosen) for block in blocks)
    return prefix if covered and _holds(prefix, small, large, weights_map, run) else None


def _single(tensor: Tensor) -> Tensor:
    """A copy in single precision, or in double if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True) if is_real(tensor) else tensor.clone()


def _blocks(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap) -> list[str]:
    """The base's blocks of those stages that have extra ones; none unless the models differ in depth alone."""
    if not all(entry.whole for entry in weights_map.entries.values()):
        return []
    extra = {
        (name.rpartition(".")[0], type(motivated.get_submodule(name))) for name in extra_modules(motivated, weights_map)
    }
    return [
        name
        for name, counterpart in _counterparts(base, motivated, weights_map).items()
        if (counterpart.rpartition(".")[0], type(motivated.get_submodule(counterpart))) in extra
    ]


def _counterparts(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap) -> dict[str, str]:
    """By name, the motivated model's module that all tensors of one of the base's go to; outer ones come first."""
    targets = {name: entry.target for name, entry in weights_map.entries.items()}
    modules = counterparts(base, motivated, weights_map)
    return {
        name: modules[name]
        for name, module in base.named_modules()
        if (leaves := tensors(module))
        and all(targets.get(f"{name}.{leaf}") == f"{modules.get(name)}.{leaf}" for leaf in leaves)
    }


def _candidates(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap) -> dict[str, str]:
    """Modules that are alike but for what goes into them; none that collects statistics."""
    candidates = {}
    for name, counterpart in _counterparts(base, motivated, weights_map).items():
        small, large = base.get_submodule(name), motivated.get_submodule(counterpart)
        own = tensors(small)
        statistics = any(leaf.endswith(NORM_STATISTICS) for leaf in own)
        # What a module prints is its class and configuration, those of dropout and of its parts included.
        if own.keys() == tensors(large).keys() and repr(small) == repr(large) and not statistics:
            candidates[name] = counterpart
    return candidates


def _with_other_weights(
    base: nn.Module, motivated: nn.Module, weights_map: WeightsMap, convert: Callable[[Tensor], Tensor] = torch.clone
) -> tuple[nn.Module, nn.Module]:
    """Copies that share weights; none of these is neutral, as those of an initialization may be."""
    generator = torch.Generator().manual_seed(0)
    small, large = scratch_copy(base, convert), scratch_copy(motivated, convert)
    with torch.no_grad():
        for model in (large, small):
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_((0.05 * noise).to(parameter.device, parameter.dtype))
        shared = {name: tensor for name, tensor in tensors(small).items() if name in weights_map.entries}
        values = weights_map.embed(shared, tensors(large))
        for name, parameter in large.named_parameters(remove_duplicate=False):  # Buffers may be each model's own.
            parameter.copy_(values[name])
    return small, large


def _same(first: list[Tensor], other: list[Tensor]) -> bool:
    return bool(first) and len(first) == len(other) and all(map(_close, first, other))


def _close(first: Tensor, other: Tensor) -> bool:
    return first.shape == other.shape and torch.allclose(first, other, rtol=1e-5, atol=1e-6, equal_nan=True)


def _holds(
    prefix: Prefix,
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    run: Callable[[nn.Module], Any],
) -> bool:
    """Whether one pass gives the outputs and the summed gradients of two."""
    twins = scratch_copy(base), scratch_copy(motivated)
    with random_state_preserved():
        try:
            for model in (base, motivated, *twins):
                model.requires_grad_(True).eval()
            separate = [run(model) for model in (base, motivated)]
            (_size(separate[0]) + _size(separate[1])).backward()
            with prefix.recorded(twins[1]) as outputs:
                larger = run(twins[1])
            with prefix.replayed(twins[0], outputs):
                smaller = run(twins[0])
            (_size(smaller) + _size(larger)).backward()
        except (RuntimeError, TypeError, KeyError, AttributeError, ValueError, IndexError):
            return False
    add_gradients(base, motivated, weights_map)
    add_gradients(*twins, weights_map)
    pairs = [
        (ours.grad, theirs.grad) for ours, theirs in zip(motivated.parameters(), twins[1].parameters(), strict=True)
    ]
    small, of_twin = dict(base.named_parameters()), dict(twins[0].named_parameters())
    pairs += [(small[name].grad, of_twin[name].grad) for name in small.keys() & weights_map.own]
    if not all(map(_same, map(tensors_in, separate), map(tensors_in, (smaller, larger)))):
        return False
    if any((ours is None) != (theirs is None) for ours, theirs in pairs):
        return False
    gradients = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    scale = max((float(ours.abs().max()) for ours, _ in gradients), default=0.0)
    return all(float((ours - theirs).abs().max()) <= TOLERANCE * scale for ours, theirs in gradients)


def _size(output: Any) -> Tensor:
    """A number that depends on every entry of an output."""
    sizes = [tensor.float().square().mean() for tensor in tensors_in(output) if tensor.is_floating_point()]
    return torch.stack(sizes).sum()
