"""Whatever draws random numbers for the data goes on where it was, bit for bit."""

import dataclasses
import functools
import itertools
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from resuming import WithDropout, interrupted_run, same, whole_run
from runs import CONFIG, images, steps, stop_at
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from seeking import Trainer
from seeking.errors import RunWarning


def seed_all() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


class Noise:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(3)

    def __call__(self) -> float:
        return self.generator.normal()


class Noisy(Dataset[Any]):
    """Draws from every global generator, and from one of its own, for each item."""

    def __init__(self) -> None:
        self.images = images(24)
        self.augment = {"noise": [Noise()]}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        pixels = self.images.pixels[index].float() / 255
        noise = torch.randn(()) + random.gauss(0, 1) + np.random.randn() + self.augment["noise"][0]()
        return pixels + 0.05 * noise, self.images.labels[index]


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.items = Noisy()

    def __len__(self) -> int:
        return 24

    def __iter__(self) -> Any:
        info = torch.utils.data.get_worker_info()
        part = (info.id, None, info.num_workers) if info else (None,)
        yield from (self.items[index] for index in itertools.islice(range(24), *part))


@pytest.mark.slow
# A list has no workers. Where there are some, they draw for the items, and this process for the order: weighted, as
# shuffled, from the global generator.
@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        *((kind, 0) for kind in ("shuffled", "own generator", "in order", "iterable", "list", "weighted")),
        *((kind, 2) for kind in ("shuffled", "own generator", "iterable")),
    ],
)
def test_data_that_draw_as_they_please(kind: str, workers: int, tmp_path: Path) -> None:

    def make(**kwargs: Any) -> Trainer:
        seed_all()
        models = WithDropout(8), WithDropout(12)
        options: dict[str, Any] = {"batch_size": 4, "num_workers": workers, "multiprocessing_context": None}
        if kind == "shuffled":
            loader: Any = DataLoader(Noisy(), shuffle=True, **options)
        elif kind == "own generator":
            loader = DataLoader(Noisy(), shuffle=True, generator=torch.Generator().manual_seed(5), **options)
        elif kind == "weighted":
            sampler = torch.utils.data.WeightedRandomSampler([1.0 + i for i in range(24)], 24)
            loader = DataLoader(Noisy(), sampler=sampler, **options)
        elif kind == "iterable":
            loader = DataLoader(Stream(), **options)
        elif kind == "list":
            loader = list(DataLoader(Noisy(), batch_size=4))
        else:
            loader = DataLoader(Noisy(), **options)
        return Trainer(*models, train_loader=loader, eval_loader=DataLoader(Noisy(), 8, shuffle=True), **kwargs)

    outputs = tmp_path / "whole", tmp_path / "parts"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process.*is multi-threaded", DeprecationWarning)
        whole = whole_run(make, outputs[0], CONFIG)
        parts = interrupted_run(make, outputs[1], CONFIG, [2, 7] if workers else [0, 2, 5, 7])
    same(whole, parts, outputs)


def test_functions_that_draw(tmp_path: Path) -> None:
    """A collate function (as of Mixup) and a loss function (as of diffusion) with generators of their own."""

    def make_drawing(**kwargs: Any) -> Trainer:
        seed_all()
        mixing, noise = np.random.default_rng(1), torch.Generator().manual_seed(1)

        def collate(drawn: np.random.Generator, items: list[Any]) -> Any:
            x, y = torch.utils.data.default_collate(items)
            return x * float(drawn.uniform()), y

        def loss_fn(model: nn.Module, batch: Any) -> Tensor:
            x, y = batch
            return F.cross_entropy(model(x + 0.1 * torch.randn(x.shape, generator=noise)), y)

        loader = DataLoader(Noisy(), 4, collate_fn=functools.partial(collate, mixing))
        return Trainer(WithDropout(8), WithDropout(12), train_loader=loader, loss_fn=loss_fn, **kwargs)

    config = CONFIG
    whole = make_drawing(output=tmp_path / "whole", config=config).fit()
    with pytest.raises(KeyboardInterrupt):
        make_drawing(output=tmp_path / "parts", config=config, listeners=[stop_at(3)]).fit()
    parts = make_drawing(output=tmp_path / "parts", config=config, resume=True).fit()
    assert steps(whole) == steps(parts)


def test_epochs_shorter_than_promised(tmp_path: Path) -> None:
    class Fewer(Stream):
        def __iter__(self) -> Any:
            return itertools.islice(super().__iter__(), 17)

    def make_short(**kwargs: Any) -> Trainer:
        seed_all()
        loader = DataLoader(Fewer(), 4)
        return Trainer(WithDropout(8), WithDropout(12), train_loader=loader, eval_loader=loader, **kwargs)

    outputs = tmp_path / "whole", tmp_path / "parts"
    config = dataclasses.replace(CONFIG, epochs=3)
    with pytest.warns(RunWarning, match="epoch 1 had 5 steps, but the length of the loader is 6"):
        whole = whole_run(make_short, outputs[0], config)
    parts = interrupted_run(make_short, outputs[1], config, [3, 4, 7])
    same(whole, parts, outputs)
