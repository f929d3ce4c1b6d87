"""States of version 0.1.0, which had the trainer's attributes in place of parts."""

from collections.abc import Collection, Mapping
from typing import Any


def upgrade(state: Mapping[str, Any], models: Collection[str]) -> dict[str, Any]:
    """A state of version 0.1.0 as one of today's; a motivated model that was trained alone was stored as a base.

    Args:
        state: of that version.
        models: names of the models that are trained now.

    Raises:
        LookupError, TypeError, AttributeError: it is not such a state.
    """
    options, place, saved = state["options"], state["place"], state["models"]
    renamed = list(saved) == ["base"] and list(models) == ["motivated"]
    names = {name: "motivated" if renamed else name for name in saved}
    schedules = state["schedules"] or dict.fromkeys(saved)
    cost = {**state["cost"], "run_samples": state["cost"]["samples"]}
    if renamed:
        cost = {
            "motivated_flops": cost["base_flops"],
            "batches": cost["batches"],
            "run_samples": cost["samples"],
            "motivated_batches": cost["batches"],
            "motivated_samples": cost["samples"],
        }
    learners = {
        names[name]: {
            "model": saved[name],
            "optimizer": state["optimizers"][name],
            "schedule": {
                "steps": place["step"],
                "planned": options["epochs"] * state["epoch_length"],
                "state": schedules[name],
            },
            "seconds": state["seconds"][name],
        }
        for name in saved
    }
    condition = {"text": state["condition"]["text"], "state": state["condition"]["state"]}
    if options.get("on") == "next":
        condition = {
            "text": f"next({condition['text']})",
            "state": {"inner": condition["state"], "previous": place["held"]},
        }
    parts = {
        "progress": {
            "epoch_length": state["epoch_length"],
            "epoch": place["epoch"],
            "step": place["step"],
            "step_in_epoch": place["place"],
        },
        **({"pair": {"separated": False}} if len(models) == 2 else {}),
        **learners,
        "condition": condition,
        "cost": cost,
        "metrics": {"latest": {names[name]: metrics for name, metrics in state["metrics"].items()}, "step": None},
        "nonfinite": {
            "failures": {names[name]: count for name, count in state["failures"].items()},
            "rollbacks": state["rollbacks"],
        },
        **({"scaler": state["scaler"]} if state["scaler"] is not None else {}),
        "random": {"processes": state["random"]},
    }
    return {
        "version": 3,
        "options": options,
        "map": state["map"],
        "step": place["step"],
        "metrics_bytes": state["metrics_bytes"],
        "parts": parts,
    }
