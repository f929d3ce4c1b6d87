"""Ordinary training: each model alone."""

import math
from collections.abc import Mapping
from typing import Any

from seeking.errors import SeekingError
from seeking.experiments.methods.base import Method, Stage


def _stages(base_cost: float, settings: Mapping[str, Any]) -> tuple[Stage, ...]:
    both, length = 1 + base_cost, settings["length"]
    if type(length) not in (int, float) or not 0 < length < math.inf:
        raise SeekingError(f"length is {length!r}; give a share of the epochs above 0, such as 0.5")
    return (
        Stage("base", "base", base_cost, base_cost / both, length, outputs=("base",)),
        Stage("motivated", "motivated", 1.0, 1 / both, length, outputs=("motivated",)),
    )


METHOD = Method("ordinary", _stages, settings={"length": 1.0}, searched_separately=True)
"""``length``: epochs of both, over those of the options: what the same FLOPs give if both are trained alone."""
