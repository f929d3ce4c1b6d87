"""The larger model is trained alone; the base then learns from it."""

from collections.abc import Mapping
from typing import Any

from seeking.algorithms.distillation import distillation
from seeking.checkpointing.weights import load_weights
from seeking.experiments.methods.base import Method, Stage, Start
from seeking.training.objective import Classification

FORWARD = 1 / 3
"""A teacher's forward pass, over its training step."""


def _stages(base_cost: float, knobs: Mapping[str, Any]) -> tuple[Stage, ...]:
    share = knobs["share"]
    return (
        Stage("distilled", "base", base_cost + FORWARD, share=share, after="motivated", gives=("base",)),
        Stage("motivated", "motivated", 1.0, share=1 - share, gives=("motivated",)),
    )


def _begin(start: Start) -> dict[str, Any]:
    if not start.before:
        return {}
    teacher = start.models["motivated"]
    load_weights(teacher, start.before / "motivated.last.safetensors")
    objective = Classification(start.config.label_smoothing, start.knobs["weight"], start.knobs["temperature"])
    return {"algorithm": distillation(teacher), "objective": objective}


METHOD = Method("distillation", _stages, _begin, knobs={"share": 0.5, "weight": 0.9, "temperature": 4.0})
"""``share``: of the FLOPs that go into the base; ``weight`` and ``temperature`` of the distillation."""
