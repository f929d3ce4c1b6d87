"""Motivated training."""

from collections.abc import Mapping
from typing import Any

from seeking.experiments.methods.base import Method, Stage


def _stages(base_cost: float, settings: Mapping[str, Any]) -> tuple[Stage, ...]:
    return (Stage("pair", "pair", base_cost + settings["rate"], outputs=("base", "motivated"), conditional=True),)


METHOD = Method("motivated", _stages, settings={"rate": 1 / 6})
"""``rate``: expected share of motivated batches."""
