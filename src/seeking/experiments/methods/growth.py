"""Growth: the base is trained first; the larger model starts from it and is then trained alone."""

from collections.abc import Mapping
from typing import Any

from seeking.checkpointing.weights import load_weights
from seeking.experiments.methods.base import Method, Stage, Start
from seeking.experiments.run import weights_map
from seeking.initialization import embed


def _stages(base_cost: float, settings: Mapping[str, Any]) -> tuple[Stage, ...]:
    share = settings["share"]
    return (
        Stage("base", "base", base_cost, share=share, outputs=("base",)),
        Stage("grown", "motivated", 1.0, share=1 - share, after="base", outputs=("motivated",)),
    )


def _begin(start: Start) -> dict[str, Any]:
    if start.previous:
        base, motivated = start.models["base"], start.models["motivated"]
        load_weights(base, start.previous / "base.last.safetensors")
        embed(base, motivated, weights_map(start.config, base, motivated, start.data.example))
    return {}


METHOD = Method("growth", _stages, _begin, settings={"share": 0.5})
"""``share``: share of the FLOPs that goes to the base."""
