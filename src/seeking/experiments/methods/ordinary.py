"""Ordinary training of each model alone."""

from collections.abc import Mapping
from typing import Any

from seeking.experiments.methods.base import Method, Stage


def _stages(base_cost: float, knobs: Mapping[str, Any]) -> tuple[Stage, ...]:
    both = 1 + base_cost
    return (
        Stage("base", "base", base_cost, share=base_cost / both, gives=("base",)),
        Stage("motivated", "motivated", 1.0, share=1 / both, gives=("motivated",)),
    )


METHOD = Method("ordinary", _stages, searched_apart=True)
