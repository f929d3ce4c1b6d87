"""Options of small runs of each task."""

from pathlib import Path
from typing import Any

from seeking.experiments import RunConfig
from seeking.experiments.tasks import TaskData, task

GPT2: dict[str, Any] = {"base": "gpt2-1x32", "motivated": "gpt2-2x32"}
TABLE: dict[str, Any] = {"base": "mlp-4", "motivated": "mlp-8", "data": "wine", "batch_size": 16}
SMALL: dict[str, Any] = {"optimizer": "adamw", "lr": 0.01, "epochs": 2, "precision": "no", "verify": False}


def text_options(path: Path, **changes: Any) -> dict[str, Any]:
    some = {"sequence_length": 16, "max_train_samples": 64, "max_eval_samples": 32, "batch_size": 16}
    return {"task": "text", "data": str(path), **GPT2, **SMALL, **some, **changes}


def loaded(config: RunConfig) -> TaskData:
    return task(config.task).load(config, 1, config.loss)
