"""The sandwich rule: both models are trained on every batch."""

from collections.abc import Mapping
from typing import Any

from seeking.algorithms.sandwich import sandwich
from seeking.experiments.methods.base import Method, Stage, Start, load_previous


def _stages(base_cost: float, settings: Mapping[str, Any]) -> tuple[Stage, ...]:
    return (Stage("sandwich", "pair", base_cost + 1, outputs=("base", "motivated")),)


def _begin(start: Start) -> dict[str, Any]:
    return {**load_previous(start), "algorithm": sandwich}


METHOD = Method("sandwich", _stages, _begin)
