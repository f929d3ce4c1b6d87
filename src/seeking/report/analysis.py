"""The analysis of a run as tables."""

from collections.abc import Mapping
from typing import Any

from seeking.choices import MODELS
from seeking.report.tables import Rows

LOSSES = {"training_loss": "training loss", "held_out_loss": "held-out loss"}
"""Names of the losses of a model, in tables and figures."""


def checkpoint_rows(analysis: Mapping[str, Any]) -> Rows:
    """Agreement of the gradients, and by how much a step changes the base's held-out loss, at each checkpoint."""
    heading = (
        *("step", "learning rate", "agreement", "of a batch"),
        *(f"held-out loss of the base, by a {name} step" for name in MODELS),
    )
    rows = [
        (
            f"{row['step']:,}",
            f"{row['learning_rate']:.3g}",
            f"{row['agreement']:+.3f}",
            _spread(row["batch_agreement"], "+.3f"),
            *(_spread(row[f"{name}_step"], "+.2e") for name in MODELS),
        )
        for row in analysis["checkpoints"]
    ]
    return heading, rows


def end_rows(analysis: Mapping[str, Any]) -> Rows:
    """Losses and sharpness of each model at the end."""
    rows = [
        (
            name,
            *(f"{end[key]:.4f}" for key in LOSSES),
            f"{end['sharpness']['eigenvalue']:.4g}" + ("" if end["sharpness"]["converged"] else " (not converged)"),
        )
        for name, end in analysis["ends"].items()
    ]
    return ("model", *LOSSES.values(), "sharpness"), rows


def line_rows(analysis: Mapping[str, Any]) -> Rows:
    """Losses along the line from the shared part to the base that was trained alone."""
    rows = [
        (f"{point['position']:.1f}", *(f"{point[name]:.4f}" for name in LOSSES)) for point in analysis.get("line", ())
    ]
    rows += [("barrier", *(f"{analysis['barrier'][name]:.4f}" for name in LOSSES))] if rows else []
    return ("position", *LOSSES.values()), rows


def _spread(estimate: Mapping[str, Any], form: str) -> str:
    deviation = estimate["deviation"]
    return f"{estimate['mean']:{form}}" + (f" ± {deviation:{form.removeprefix('+')}}" if deviation is not None else "")
