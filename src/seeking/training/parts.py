"""The parts of a run whose state is saved in checkpoints."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from seeking.checkpointing.resume import Stateful
from seeking.errors import SeekingError
from seeking.training.evaluation import Scores
from seeking.training.objective import LossFn
from seeking.training.rng import RunRandomState
from seeking.training.run import Algorithm, Run, average_part
from seeking.training.saved_condition import SavedCondition

RESERVED = ("algorithm", "loss_fn", "objective")
"""Names that custom parts cannot have, besides those of the run's own parts."""


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

    The algorithm and the objective are parts if they have ``state_dict`` and ``load_state_dict``; so is a ``loss_fn``
    if its state is not empty.

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
    optional: list[tuple[str, Any]] = [("algorithm", algorithm), ("objective", run.objective), *custom.items()]
    if not isinstance(loss_fn, nn.Module) or loss_fn.state_dict():  # Most modules of losses have none.
        optional.insert(0, ("loss_fn", loss_fn))
    for name, part in optional:
        if not isinstance(name, str):
            raise SeekingError(f"part {name!r}: its name is a {type(name).__name__}; name it by a string")
        if name in parts or name == "random" or (name in custom and name in RESERVED):
            raise SeekingError(f"part {name!r}: the run already has a part of that name; choose another name")
        if hasattr(part, "state_dict") and hasattr(part, "load_state_dict"):
            parts[name] = part
        elif name in custom:
            raise SeekingError(f"part {name!r}, a {type(part).__name__}, has no state_dict and load_state_dict")
    return {**parts, "random": random}  # Last, since restoring the others may draw random numbers.
