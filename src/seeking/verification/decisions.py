"""Where a forward pass decides: what it decides by must agree, since the same decision on one batch proves nothing."""

from typing import Any

from torch import Tensor

from seeking.internals import TorchDispatchMode
from seeking.matching.operation import short_name
from seeking.matching.parts import COMPETITIONS, THRESHOLDS
from seeking.verification.compare import relative_difference

DECIDES = COMPETITIONS | THRESHOLDS

Decisions = list[tuple[str, Tensor]]
"""Names of operations that decide, with the real numbers that they decide by, in the order of the forward pass."""


class Deciding(TorchDispatchMode):
    """Records the decisions of a forward pass."""

    def __init__(self, decisions: Decisions) -> None:
        super().__init__()
        self._decisions = decisions

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = short_name(func)
        first = args[0] if args else None
        if name in DECIDES and isinstance(first, Tensor) and first.is_floating_point():
            self._decisions.append((name, first.detach().clone()))
        return func(*args, **(kwargs or {}))


def differing_decision(base: Decisions, motivated: Decisions, tolerance: float) -> str:
    """A sentence on the first operation that decides by other numbers in the motivated model; empty if there is none.

    Extra blocks may decide in between. Numbers of which the motivated model has more are left out.
    """
    position = 0
    for name, small in base:
        differences = {
            number: relative_difference(small, large)
            for number, (other, large) in enumerate(motivated[position:], position)
            if other == name and large.shape == small.shape
        }
        alike = next((number for number, difference in differences.items() if difference <= tolerance), None)
        if alike is not None:
            position = alike + 1
        elif differences:
            return (
                f"{name} decides by numbers that differ by {min(differences.values()):.1e}: whether it decides alike "
                "depends on the batch"
            )
    return ""
