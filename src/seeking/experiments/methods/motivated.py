"""Motivated training."""

from collections.abc import Mapping
from typing import Any

from seeking.experiments.methods.base import Method, Stage


def _stages(base_cost: float, knobs: Mapping[str, Any]) -> tuple[Stage, ...]:
    return (Stage("pair", "pair", base_cost + knobs["rate"], gives=("base", "motivated"), conditional=True),)


METHOD = Method("motivated", _stages, knobs={"rate": 1 / 6})
"""``rate``: the share of motivated batches that is expected."""
