"""What models keep from earlier forward passes, such as a table that the first one computes, in its precision."""

from typing import Any

from torch import Tensor, nn

from seeking.copies import copied, plain_parts, random_state_preserved
from seeking.deterministic import Deterministic
from seeking.forward import Forward


def lacks_memories(model: nn.Module, other: nn.Module) -> bool:
    """Whether modules of one class keep tensors, besides parameters and buffers, in the other model alone."""
    classes = {type(module) for module in model.modules()}
    return any(kind in classes for kind, _ in _kept(other) - _kept(model))


def _kept(model: nn.Module) -> set[tuple[type[nn.Module], str]]:
    return {
        (type(module), name)
        for module in model.modules()
        for name, value in vars(module).items()
        if name not in ("_parameters", "_buffers", "_modules")
        and any(isinstance(part, Tensor) for part in plain_parts(value))
    }


def run_once(model: nn.Module, batch: Any, run: Forward, seed: int) -> None:
    """Let a copy of a model keep what it keeps from a first pass, as the user's own models do.

    Args:
        model: a copy, with its own weights and in its own precision.
        batch: one input, as ``run`` takes it; it is not changed.
        run: runs a model on the batch; where it fails, so it does later.
        seed: of the random numbers in the forward pass.
    """
    with Deterministic(), random_state_preserved(seed):
        try:
            run(model, copied(batch))
        except Exception:
            return
