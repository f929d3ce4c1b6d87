"""The parts of a run whose state is saved in checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seeking.checkpointing.resume import Stateful
from seeking.errors import SeekingError
from seeking.training.evaluation import Scores
from seeking.training.objective import LossFn
from seeking.training.rng import RunRandomState
from seeking.training.run import Algorithm, Run, average_part
from seeking.training.saved_condition import SavedCondition

RESERVED = ("algorithm", "loss_fn", "objective")
"""Names that custom parts cannot have, besides those of the run's own parts."""


@dataclass(frozen=True)
class ModulePart:
    """A module whose buffers may come with its first call, such as running means of a loss.

    Attributes:
        module: the module.
        device: that such buffers are restored on.
    """

    module: nn.Module
    device: torch.device

    def state_dict(self) -> dict[str, Any]:
        """That of the module."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there, with the buffers that there were."""
        for key, value in state.items():
            owner, _, name = key.rpartition(".")
            module = self.module.get_submodule(owner)
            if isinstance(value, Tensor) and getattr(module, name, None) is None:
                module.register_buffer(name, value.to(self.device, copy=True))
        self.module.load_state_dict(state)


def collect_parts(
    run: Run,
    algorithm: Algorithm,
    loss_fn: LossFn | None,
    scores: Scores,
    random: RunRandomState,
    scaler: Any,
    position: Stateful | None,
    custom: Mapping[str, Stateful],
) -> dict[str, Stateful]:
    """All parts by name, in the order in which they are restored.

    The algorithm, the objective and the ``loss_fn`` are parts if they have ``state_dict`` and ``load_state_dict``.

    Raises:
        SeekingError: a custom part has the name of another part, or has no ``state_dict``.
    """
    parts: dict[str, Stateful] = {
        "progress": run.progress,
        **({"pair": run.pair_or_none} if run.pair_or_none else {}),  # Before the models, which may have parted.
        **run.learners,
        "condition": SavedCondition(run.condition),
        "cost": run.cost,
        "metrics": scores,
        "nonfinite": run.guard,
        **({"joining": run.joining} if run.joining else {}),
        **{average_part(name): average for name, average in run.averages.items()},
    }
    if scaler is not None:
        parts["scaler"] = scaler
    if position is not None:
        parts["position"] = position
    optional: list[tuple[str, Any]] = [("loss_fn", loss_fn), ("algorithm", algorithm), ("objective", run.objective)]
    for name, part in (*optional, *custom.items()):
        if not isinstance(name, str):
            raise SeekingError(f"part {name!r}: its name is a {type(name).__name__}; name it by a string")
        if name in parts or name == "random" or (name in custom and name in RESERVED):
            raise SeekingError(f"part {name!r}: the run already has a part of that name; choose another name")
        if hasattr(part, "state_dict") and hasattr(part, "load_state_dict"):
            parts[name] = ModulePart(part, run.stepper.accelerator.device) if isinstance(part, nn.Module) else part
        elif name in custom:
            raise SeekingError(f"part {name!r}, a {type(part).__name__}, has no state_dict and load_state_dict")
    return {**parts, "random": random}  # Last, since restoring the others may draw random numbers.
