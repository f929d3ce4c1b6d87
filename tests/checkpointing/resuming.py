"""Runs that are stopped and resumed, and the comparison with the uninterrupted one."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from runs import CONFIG, batches, stop_at, two_models
from safetensors.torch import load_file
from torch import Tensor, nn

from seeking import TrainConfig, Trainer
from seeking.training import Result
from seeking.weights_map import tensors

EVERY_STEP = dataclasses.replace(CONFIG, save_every="1")


class Killed(Exception):
    """Stands for whatever ends a program at once."""


def whole_run(make: Any, output: Path, config: TrainConfig, **kwargs: Any) -> tuple[Trainer, Result]:
    trainer = make(output=output, config=config, **kwargs)
    return trainer, trainer.fit()


def interrupted_run(make: Any, output: Path, config: TrainConfig, at: list[int]) -> tuple[Trainer, Result]:
    """The same run, stopped after each of these steps and resumed by a new program's objects."""
    for step in at:
        with pytest.raises(KeyboardInterrupt):
            make(output=output, config=config, resume=True, listeners=[stop_at(step)]).fit()
        # What another program would find its generators at.
        torch.manual_seed(step + 100)
        random.seed(step)
        np.random.seed(step)
    trainer = make(output=output, config=config, resume=True)
    return trainer, trainer.fit()


def same(run: tuple[Trainer, Result], other: tuple[Trainer, Result], outputs: tuple[Path, Path]) -> None:
    """Weights, buffers, metrics, decisions, costs and what is on disk."""
    assert run[1].history == other[1].history
    assert run[1].metrics == other[1].metrics
    assert run[1].best == other[1].best
    assert run[1].cost == other[1].cost
    for role, learner in run[0].learners.items():
        theirs = tensors(other[0].learners[role].module)
        for name, tensor in tensors(learner.module).items():
            assert torch.equal(tensor, theirs[name]), (role, name)
        for which in ("last", "best"):
            files = [load_file(output / f"{role}.{which}.safetensors") for output in outputs]
            assert files[0].keys() == files[1].keys()
            assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())
    rows = [(output / "metrics.jsonl").read_text() for output in outputs]
    assert rows[0] == rows[1]


def make(**kwargs: Any) -> Trainer:
    torch.manual_seed(0)
    return Trainer(*two_models(), **{**batches(padding=1, flip=True), **kwargs})


def make_plain(**kwargs: Any) -> Trainer:
    """For what does not depend on the models: without convolutions and norms."""
    torch.manual_seed(0)
    return Trainer(WithDropout(8), WithDropout(12), **batches(), **kwargs)


class WithDropout(nn.Module):
    """Draws from PyTorch's generator in between the batches, and from one of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(192, width), nn.Linear(width, 4)
        self.own = torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + 0.01 * torch.randn(x.shape, generator=self.own)
        return self.out(F.dropout(self.hidden(x.flatten(1)).relu(), 0.3, self.training))
