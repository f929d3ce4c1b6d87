"""The base is trained first; the larger model begins as its function and is then trained alone."""

from collections.abc import Mapping
from typing import Any

import torch

from seeking.checkpointing.weights import load_weights
from seeking.experiments.methods.base import Method, Stage, Start
from seeking.experiments.run import weights_map
from seeking.initialization import embed


def _stages(base_cost: float, knobs: Mapping[str, Any]) -> tuple[Stage, ...]:
    share = knobs["share"]
    return (
        Stage("base", "base", base_cost, share=share, gives=("base",)),
        Stage("grown", "motivated", 1.0, share=1 - share, after="base", gives=("motivated",)),
    )


def _begin(start: Start) -> dict[str, Any]:
    if start.before:
        base, motivated = start.models["base"], start.models["motivated"]
        load_weights(base, start.before / "base.last.safetensors")
        embed(base, motivated, weights_map(start.config, base, motivated, torch.zeros(2, *start.image_shape)))
    return {}


METHOD = Method("growth", _stages, _begin, knobs={"share": 0.5})
"""``share``: of the FLOPs that go into the base."""
