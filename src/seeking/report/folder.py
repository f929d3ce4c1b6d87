"""Describe a run folder as text."""

from pathlib import Path

from seeking.checkpointing import snapshot
from seeking.checkpointing.metrics_log import read_rows
from seeking.errors import SeekingError
from seeking.files import MAX_OPTIONS_BYTES, read_json


def describe(path: Path) -> str:
    """The options of a run, its progress, its results, and whether its checkpoints are intact.

    Nothing in the folder is executed or changed.

    Raises:
        SeekingError: this is not a run folder, or its options or metrics are damaged.
    """
    if not (path / "config.json").is_file():
        raise SeekingError(f"{path}: not a run folder, it has no config.json")
    options = read_json(path / "config.json", MAX_OPTIONS_BYTES)
    steps = motivated = 0
    lines = []
    for row in read_rows(path / "metrics.jsonl") if (path / "metrics.jsonl").exists() else ():
        if row["kind"] == "step":
            steps += 1
            motivated += "motivated_loss" in row
        elif row["kind"] == "eval":
            scores = [
                f"{model} {name} {row[model][name]:.4f}"
                for model in ("base", "motivated")
                for name in ("accuracy", "loss")
                if isinstance(row.get(model), dict) and isinstance(row[model].get(name), float)
            ]
            lines.append(f"  epoch {row.get('epoch')!r}: {', '.join(scores) or 'no metrics'}")
    lines = [f"{steps} steps, {motivated} of them motivated", *lines, "checkpoints:"]
    for checkpoint in snapshot.list_checkpoints(path / "checkpoints"):
        try:
            snapshot.check(checkpoint)
            lines.append(f"  {checkpoint.name}: intact")
        except SeekingError as error:
            lines.append(f"  {checkpoint.name}: NOT intact ({error})")
    lines += ["options:", *(f"  {name!r}: {value!r}" for name, value in options.items())]
    return "\n".join(f"{path}\n{line}" if number == 0 else line for number, line in enumerate(lines))
