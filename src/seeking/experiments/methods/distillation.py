"""Distillation: the larger model is trained alone, then the base learns from it."""

from collections.abc import Mapping
from typing import Any

from seeking.algorithms.distillation import distillation
from seeking.checkpointing.weights import load_weights
from seeking.experiments.methods.base import Method, Stage, Start

FORWARD_SHARE = 1 / 3
"""FLOPs of a forward pass over those of a training step."""


def _stages(base_cost: float, settings: Mapping[str, Any]) -> tuple[Stage, ...]:
    share = settings["share"]
    return (
        Stage("distilled", "base", base_cost + FORWARD_SHARE, share=share, after="motivated", outputs=("base",)),
        Stage("motivated", "motivated", 1.0, share=1 - share, outputs=("motivated",)),
    )


def _begin(start: Start) -> dict[str, Any]:
    if not start.previous:
        return {}
    teacher = start.models["motivated"]
    load_weights(teacher, start.previous / "motivated.last.safetensors")
    objective = start.data.taught(start.config, start.settings["weight"], start.settings["temperature"])
    return {"algorithm": distillation(teacher), "objective": objective}


METHOD = Method("distillation", _stages, _begin, settings={"share": 0.5, "weight": 0.9, "temperature": 4.0})
"""``share``: share of the FLOPs that goes to the base; ``weight`` and ``temperature``: of the distillation loss."""
