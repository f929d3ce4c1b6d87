"""A batch that is not trained on draws no random numbers: a run that ends in it resumes bit for bit."""

import dataclasses
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import PLAIN
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from seeking import Trainer
from seeking.training import interrupts
from seeking.training.rng import RandomState

ITEMS, BATCH = 12, 3


class Noisy(Dataset[Any]):
    """Draws from every global generator, and from one of its own, for each item; one item does something else first."""

    def __init__(self, at: int, action: Callable[[], None]) -> None:
        self.at, self.action, self.loads, self.own = at, action, 0, np.random.default_rng(3)

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.randn(5) + random.gauss(0, 1) + np.random.randn() + self.own.normal()
        self.loads += 1
        if self.loads == self.at:
            self.action()
        return noise + index % 3, index % 3


class Stream(IterableDataset[Any]):
    def __init__(self, items: Noisy) -> None:
        self.items = items

    def __len__(self) -> int:
        return ITEMS

    def __iter__(self) -> Any:
        return (self.items[index] for index in range(ITEMS))


class Dropping(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(5, width), nn.Dropout(0.5), nn.Linear(width, 3))


def fail() -> None:
    raise OSError("the disk is away")


def stop_and_hang() -> None:
    signal.raise_signal(signal.SIGINT)
    interrupts.time.sleep(1)  # A second signal comes, as the stop has no patience.


def make(kind: str, accumulate: int, output: Path, at: int = 0, action: Callable[[], None] = fail) -> Trainer:
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(0)
    items = Noisy(at, action if kind != "loss" else lambda: None)
    loader: Any = DataLoader(Stream(items) if kind == "stream" else items, BATCH)
    if kind == "shuffled":
        loader = DataLoader(items, BATCH, shuffle=True, generator=torch.Generator().manual_seed(1))

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        noise = torch.randn(()) + random.gauss(0, 1)
        if kind == "loss" and items.loads >= at > 0:
            action()
        return F.cross_entropy(model(batch[0]) + noise, batch[1])

    config = dataclasses.replace(PLAIN, accumulate=accumulate, save_every="10m", condition="always")
    models = Dropping(4), Dropping(6)
    return Trainer(*models, train_loader=loader, loss_fn=loss_fn, config=config, output=output, resume=True)


@pytest.mark.slow
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["in order", "shuffled", "stream", "loss"]),
    accumulate=st.sampled_from([1, 2]),
    at=st.integers(BATCH + 1, BATCH + 2 * ITEMS - 1),
    stopped=st.booleans(),
)
def test_a_batch_that_is_not_trained_on_leaves_no_trace(
    kind: str, accumulate: int, at: int, stopped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interrupts, "PATIENCE_SECONDS", 0.02)
        with pytest.raises((Exception, KeyboardInterrupt)):
            make(kind, accumulate, folder / "run", at, stop_and_hang if stopped and kind != "loss" else fail).fit()
    resumed = make(kind, accumulate, folder / "run").fit()
    whole = make(kind, accumulate, folder / "whole").fit()
    assert resumed.history == whole.history


DRAWS = {
    "normal": lambda: np.random.randn(),
    "uniform": lambda: np.random.rand(),
    "seed": lambda: np.random.seed(0),
    "python": lambda: random.gauss(0, 1),
    "other": lambda: np.random.set_state(np.random.RandomState(7).get_state()),
}


@given(before=st.lists(st.sampled_from([*DRAWS])), after=st.lists(st.sampled_from([*DRAWS])))
def test_snapshots_are_those_of_the_moment(before: list[str], after: list[str]) -> None:
    generators = RandomState(torch.device("cpu"))
    for name in before:
        DRAWS[name]()
        generators.snapshot()
    state, expected = generators.snapshot(), [np.random.get_state(), random.getstate()]
    for name in after:
        DRAWS[name]()
    generators.load_state_dict(state)
    assert repr([np.random.get_state(), random.getstate()]) == repr(expected)


def test_a_snapshot_is_a_state() -> None:
    class Owner:
        generators = torch.Generator(), np.random.default_rng(1), np.random.RandomState(2), random.Random(3)

        def __init__(self) -> None:
            self.held = self.generators

    def draw() -> list[float]:
        own = [torch.rand((), generator=Owner.generators[0]).item(), Owner.generators[1].random()]
        own += [Owner.generators[2].rand(), Owner.generators[3].random()]
        return [*own, torch.rand(()).item(), np.random.rand(), random.gauss(0, 1)]

    state = RandomState(torch.device("cpu"), Owner())
    snapshot, plain = state.snapshot(), state.state_dict()
    drawn = draw()
    for kept in (snapshot, plain):
        state.load_state_dict(kept)
        assert draw() == drawn
