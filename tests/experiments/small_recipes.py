"""Recipes whose runs take a second, and what they leave."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st

from seeking import TrainConfig
from seeking.experiments.claim import claim as claimed
from seeking.experiments.recipe import Recipe

PLAIN = TrainConfig(epochs=1, lr=0.05, precision="no", channels_last=False, fused=False)

TINY: dict[str, Any] = {
    "title": "Everything, small",
    "classes": 10,
    "reference": "ordinary",
    "options": {"max_train_samples": 64, "batch_size": 32, "lr": 0.05, "verify": False, "model_kwargs": {"width": 4}},
    "arms": {
        "ordinary": {"method": "ordinary"},
        "condition": {},
        "sandwich": {"method": "sandwich"},
        "growth": {"method": "growth"},
        "distillation": {"method": "distillation"},
    },
    "scales": {
        "quick": {"pairs": [["resnet8", "resnet14"]], "seeds": 2, "options": {"epochs": 1}},
        "by-cost": {"pairs": [["resnet8", "resnet14"]], "seeds": 1, "budgets": [1, 2], "search": {"lr": [0.01, 0.05]}},
    },
}


def tiny(folder: Path, **changes: Any) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return str(path)


@contextlib.contextmanager
def by_one_thread() -> Iterator[None]:
    """As each of two processes side by side has on two cores: other numbers of threads sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def claim(recipe: Recipe, root: Path) -> None:
    with claimed(recipe, root):
        pass


def quietly(name: str, row: dict[str, Any]) -> None: ...


def results(root: Path) -> dict[str, Any]:
    return json.loads((root / "results.json").read_text())


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


OPTIONS = {"budget": [0.7, 0.9], "condition": ["always", "every:3"], "finish": ["tied", "private"], "decay": [0.1, 0.3]}
SOME_OPTIONS = st.fixed_dictionaries({}, optional={name: st.sampled_from(OPTIONS[name]) for name in OPTIONS})
