"""Cost of checkpoints: size, time relative to plain reads and writes of as many bytes, and slow-down of training.

By default of a pair of 107 million parameters (vit_small in vit_base at 32 pixels, SGD with momentum).

    python benchmarks/checkpoint.py
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ratios import seconds, summary
from torch import Tensor
from torch.utils.data import DataLoader

from seeking.checkpointing.resume import newest_state
from seeking.models import create
from seeking.training import TrainConfig, Trainer

VIT = {"img_size": 32, "patch_size": 4, "num_classes": 10}


class Batches(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """One random batch, repeated."""

    def __init__(self, count: int, batch_size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.count = count
        self.x = torch.randn(batch_size, 3, 32, 32, generator=generator)
        self.y = torch.randint(10, (batch_size,), generator=generator)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index >= self.count:
            raise IndexError
        return self.x, self.y


class Saving:
    """A listener that saves a checkpoint at one step of the epoch, if ``at_step`` is set."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self.at_step: int | None = None

    def __call__(self, row: dict[str, Any]) -> None:
        if self.trainer and row["kind"] == "step" and self.trainer.progress.step_in_epoch == self.at_step:
            self.trainer.save()


def make_trainer(arguments: argparse.Namespace, output: Path, saving: Saving) -> Trainer:
    models = [create(f"vit_{size}_patch16_224", **VIT) for size in arguments.pair]
    return Trainer(
        *models,
        train_loader=DataLoader(Batches(arguments.steps, arguments.batch_size), batch_size=None),
        config=TrainConfig(condition="every:6", save_every="1000000", schedule="constant", verify=False),
        output=output,
        listeners=[saving],
    )


def plain_write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def slowdowns(trainer: Trainer, saving: Saving, rounds: int) -> Iterator[float]:
    """Ratios of the time of an epoch with one save to that without, measured alternately."""
    early = (trainer.progress.epoch_length or 0) // 8  # Early, so that the writing also falls into these steps.

    def steps(save: bool) -> None:
        saving.at_step = early if save else None
        trainer.progress.epoch, trainer.progress.step_in_epoch = trainer.progress.epoch + 1, 0
        trainer.train_batches()
        trainer.saver.wait()

    steps(save=True)
    for number in range(rounds):
        first = seconds(lambda: steps(save=number % 2 == 0))  # noqa: B023
        second = seconds(lambda: steps(save=number % 2 == 1))  # noqa: B023
        yield first / second if number % 2 == 0 else second / first
    saving.at_step = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", nargs=2, default=("small", "base"), help="sizes of vision transformers")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=40, help="steps that are timed, with one save among them")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        saving = Saving()
        trainer = saving.trainer = make_trainer(arguments, output, saving)
        trainer.begin()
        batch = trainer.loaders.train.dataset[0]
        ratios = list(slowdowns(trainer, saving, arguments.rounds))
        print(f"{arguments.steps} steps with a save / without                    {summary(ratios)}")
        per_100_steps = [1 + (ratio - 1) * arguments.steps / 100 for ratio in ratios]
        print(f"the same for a save in 100 steps                  {summary(per_100_steps)}")
        one_step = statistics.median(seconds(lambda: trainer.run.step(trainer.run.base, [batch])) for _ in range(5))
        stalls, writes = [], []
        for _ in range(5):
            trainer.progress.step += 1
            stalls.append(seconds(trainer.save))
            writes.append(seconds(trainer.saver.wait))
        newest = max((output / "checkpoints").glob("step-*"))
        size = sum(file.stat().st_size for file in newest.iterdir())
        content = (newest / "tensors.safetensors").read_bytes()
        plain = statistics.median(seconds(lambda: plain_write(Path(folder) / "plain", content)) for _ in range(5))
        read = statistics.median(seconds((Path(folder) / "plain").read_bytes) for _ in range(5))

        def resume() -> None:
            assert trainer.saver.folder
            state = newest_state(trainer.saver.folder, tuple(trainer.learners))
            assert state
            trainer.saver.restore(trainer.parts, state)

        resumed = statistics.median(seconds(resume) for _ in range(3))
        trainer.saver.close()
    parameters = sum(p.numel() for learner in trainer.learners.values() for p in learner.module.parameters())
    print(f"{parameters / 1e6:.0f} M parameters, batch {arguments.batch_size}, {torch.get_num_threads()} threads")
    print(f"bytes of a checkpoint                             {size / 1e6:,.0f} MB")
    print(f"stall for a save / one step                       {statistics.median(stalls) / one_step:.2f}")
    print(f"writing (in the background) / plain write, flush  {statistics.median(writes) / plain:.2f}")
    print(f"resuming / plain read                             {resumed / read:.2f}")


if __name__ == "__main__":
    main()
