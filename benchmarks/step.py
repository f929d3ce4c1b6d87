"""Step times of a motivated run against a bare PyTorch loop that does the same forward, backward and optimizer steps.

Prints the ratio of the two, timed in turns within one process: the median over rounds, and their spread.

    python benchmarks/step.py
"""

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from ratios import seconds, told
from torch import Tensor, nn
from torch.utils.data import DataLoader

from seeking.models import create
from seeking.training import TrainConfig, Trainer

VIT = {"img_size": 32, "patch_size": 4}
PAIRS = {
    "resnet8 in resnet14": ("resnet8", "resnet14", {}, 32),
    "resnet20 in resnet32": ("resnet20", "resnet32", {}, 64),
    "vit_tiny in vit_small": ("vit_tiny_patch16_224", "vit_small_patch16_224", VIT, 16),
    "vit_small in vit_base": ("vit_small_patch16_224", "vit_base_patch16_224", {"img_size": 32, "patch_size": 8}, 16),
}


def made(names: tuple[str, str], kwargs: dict[str, int]) -> list[nn.Module]:
    """The two models, with the same weights at every call."""
    torch.manual_seed(0)
    return [create(name, num_classes=10, **kwargs) for name in names]


def bare(
    models: Sequence[nn.Module],
    batches: DataLoader[tuple[Tensor, Tensor]],
    optimizers: Sequence[torch.optim.Optimizer] = (),
) -> Callable[[], None]:
    """A hand-written loop: the base at every batch, the larger model at every sixth."""
    optimizers = optimizers or [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, nesterov=True) for m in models]

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
        model.train()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def epoch() -> None:
        for number, (x, y) in enumerate(batches):
            step(models[0], optimizers[0], x, y)
            if number % 6 == 5:
                step(models[1], optimizers[1], x, y)

    return epoch


CONFIG = TrainConfig(
    condition="every:6",
    lr=0.01,
    weight_decay=0.0,
    schedule="constant",
    precision="no",
    channels_last=False,
    fused=False,
)
"""The options of the bare loop's steps."""


def motivated(
    models: list[nn.Module], batches: DataLoader[tuple[Tensor, Tensor]], config: TrainConfig = CONFIG
) -> Callable[[], None]:
    """The trainer's own epoch with the same steps."""
    trainer = Trainer(models[0], models[1], train_loader=batches, config=config)

    def epoch() -> None:
        trainer.progress.step_in_epoch = 0
        trainer.train_epoch()

    return epoch


class Batches(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Random images, made before the clock starts."""

    def __init__(self, count: int, batch_size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(count, batch_size, 3, 32, 32, generator=generator)
        self.y = torch.randint(10, (count, batch_size), generator=generator)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]


def rounds(ours: Callable[[], None], theirs: Callable[[], None], count: int) -> Iterator[float]:
    """Ratios of the times of the two, in turns, each first every other time."""
    ours()
    theirs()
    for number in range(count):
        if number % 2:
            yield seconds(ours) / seconds(theirs)
        else:
            yield 1 / (seconds(theirs) / seconds(ours))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=12, help="batches in a round")
    parser.add_argument("--pairs", nargs="*", choices=PAIRS, default=[*PAIRS])
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # As Trainer.fit does.
    print(f"motivated run / bare loop, {torch.get_num_threads()} threads, {arguments.rounds} rounds")
    for title in arguments.pairs:
        base, larger, kwargs, batch_size = PAIRS[title]
        data = Batches(arguments.steps, batch_size)
        ours = motivated(made((base, larger), kwargs), DataLoader(data, batch_size=None))
        theirs = bare(made((base, larger), kwargs), DataLoader(data, batch_size=None))
        print(f"{title:24} {told(list(rounds(ours, theirs, arguments.rounds)))}", flush=True)


if __name__ == "__main__":
    main()
