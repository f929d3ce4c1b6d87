"""Small runs that several tests share: data that can be learnt, models, and their training."""

import dataclasses
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from seeking import TrainConfig, Trainer
from seeking.data import Augmentation, Batches, Images, loader
from seeking.models.resnet import BasicBlock
from seeking.training import Result
from seeking.weights_map import tensors

# Without the proof that the base is a sub-network, which has tests of its own and is a third of so short a run.
CONFIG = TrainConfig(epochs=2, lr=0.05, condition="decrease:1", verify=False)


PLAIN = dataclasses.replace(CONFIG, precision="no", channels_last=False, fused=False)


def images(count: int = 48, size: int = 8, classes: int = 4, seed: int = 0) -> Images:
    """Noise around a pattern of each class: learnable."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    patterns = torch.randint(0, 160, (classes, 3, size, size), generator=torch.Generator().manual_seed(9))
    noise = torch.randint(0, 90, (count, 3, size, size), generator=generator)
    return Images((patterns[labels] + noise).to(torch.uint8), labels)


def batches(seed: int = 0, batch_size: int = 8, **augmentation: Any) -> dict[str, DataLoader[Any]]:
    train, test = images(), images(seed=1)
    mean, std = train.statistics()
    return {
        "train_loader": loader(
            Batches(train, mean, std, augmentation=Augmentation(**augmentation), seed=seed),
            batch_size,
            shuffle_seed=seed,
        ),
        "eval_loader": loader(Batches(test, mean, std), 32),
    }


class OneStage(nn.Module):
    """A ResNet of one stage: all that the training of a larger one meets, in a third of its layers."""

    def __init__(self, blocks: int, width: int, classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(*(BasicBlock(width, width, 1) for _ in range(blocks)))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layer1(F.relu(self.bn1(self.conv1(x)))).mean(dim=(2, 3)))
        return logits


def two_models(seed: int = 0) -> tuple[OneStage, OneStage]:
    """The larger one has more blocks and more channels."""
    torch.manual_seed(seed)
    return OneStage(1, width=8), OneStage(2, width=12)


def steps(result: Result) -> list[dict[str, Any]]:
    return [row for row in result.history if row["kind"] == "step"]


def run(config: TrainConfig = CONFIG, **kwargs: Any) -> tuple[Trainer, Result]:
    trainer = Trainer(*two_models(), **{**batches(padding=1, flip=True), **kwargs}, config=config)
    return trainer, trainer.fit()


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {
        f"{name} {key}": tensor
        for name, each in trainer.learners.items()
        for key, tensor in tensors(each.module).items()
    }


def assert_equal(trainer: Trainer, other: Trainer) -> None:
    assert weights(trainer).keys() == weights(other).keys()
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(trainer).items())


def stop_at(*steps: int, kind: str = "step") -> Callable[[dict[str, Any]], None]:
    """A listener that ends a run right after each of these steps, or after an evaluation there."""

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == kind and row["step"] in steps:
            signal.raise_signal(signal.SIGINT)

    return listen


def interrupted(make: Callable[..., Trainer], output: Path, at: Sequence[int]) -> Trainer:
    """A run that is stopped after these steps, and each time resumed by a new trainer."""
    for step in at:
        with pytest.raises(KeyboardInterrupt):
            make(output=output, resume=True, listeners=[stop_at(step)]).fit()
    trainer = make(output=output, resume=True)
    trainer.fit()
    return trainer


def whole_and_resumed(make: Callable[..., Trainer], output: Path, at: Sequence[int]) -> tuple[Trainer, Trainer]:
    """A run, and the same ``interrupted``: both end with the same weights."""
    whole = make()
    whole.fit()
    resumed = interrupted(make, output, at)
    assert_equal(whole, resumed)
    return whole, resumed


def hand_written_loop(model: nn.Module, optimizer: torch.optim.Optimizer, bf16: bool = False) -> list[float]:
    """Ordinary training for as long as a run with ``CONFIG``: the losses."""
    data = batches()["train_loader"]
    losses = []
    for epoch in range(2):
        data.sampler.set_epoch(epoch)
        for x, y in data:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


class Plain(nn.Module):
    """Without batch normalization, so that a batch is the mean of its parts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(5, width), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x).tanh())


def regression_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch["x"])[:, 0], batch["y"])


def regression(batch_size: int, accumulate: int = 1, **changes: Any) -> tuple[Trainer, Result]:
    torch.manual_seed(0)
    x = torch.randn(96, 5)
    rows = [{"x": row, "y": row.sum()} for row in x]
    models = Plain(6), Plain(9)
    trainer = Trainer(
        *models,
        train_loader=DataLoader(rows, batch_size=batch_size),
        eval_loader=DataLoader(rows, batch_size=40),
        loss_fn=regression_loss,
        config=dataclasses.replace(PLAIN, epochs=3, accumulate=accumulate, **{"condition": "every:3", **changes}),
    )
    return trainer, trainer.fit()


def image_folder(root: Path, sizes: Sequence[int] = (6, 6), per_class: int = 3) -> Path:
    """A folder of noise, in two classes and two splits."""
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(per_class):
                size = sizes[number % len(sizes)]
                pixels = draw.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root
