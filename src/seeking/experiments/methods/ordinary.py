"""Ordinary training: each model alone."""

from collections.abc import Mapping
from typing import Any

from seeking.experiments.methods.base import Method, Stage


def _stages(base_cost: float, settings: Mapping[str, Any]) -> tuple[Stage, ...]:
    both = 1 + base_cost
    return (
        Stage("base", "base", base_cost, share=base_cost / both, outputs=("base",)),
        Stage("motivated", "motivated", 1.0, share=1 / both, outputs=("motivated",)),
    )


METHOD = Method("ordinary", _stages, searched_separately=True)
