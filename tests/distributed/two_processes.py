"""Trains pairs by every condition, alone or as one of several processes, and writes what came out (test_processes.py).

python tests/distributed/two_processes.py FOLDER
torchrun --nproc-per-node 2 tests/distributed/two_processes.py FOLDER
"""

import itertools
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import TrainConfig, Trainer
from seeking.weights_map import tensors

CONDITIONS = ["decrease:2", "random:0.4", "matched(decrease:1)", "every:3", "after:10", "always", "never"]
CONDITIONS += ["~decrease:1 & (every:2 | random:0.3)", "held_out:4 & (smoothed:1 | agreement:0)"]
PAIRS = {"tied": ((8, 1), (8, 2)), "sliced": ((8, 1), (12, 2))}


class Residual(nn.Module):
    """Blocks around an identity, normalized by the sample: the mean over a batch is the mean over its parts."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(F.gelu(self.inner(x)))


def train(samples: int, pair: str, condition: str, on: str, shared: str, more: dict[str, Any]) -> Trainer:
    torch.manual_seed(0)
    x = torch.randn(samples, 1, 6, 6)
    labels = (x.mean(dim=(1, 2, 3)) * 6).round().long() % 5
    labels[torch.rand(samples) < 0.4] = -100  # So that the processes have other numbers of labels, at times none.
    data = TensorDataset(x, labels)
    config = TrainConfig(
        epochs=2,
        lr=0.05,
        condition=condition,
        on=on,
        optimizer_state=shared,
        precision="no",
        clip_grad=5.0,
        verify=False,
        **more,
    )
    models = [Residual(*size) for size in PAIRS[pair]]
    held_out = DataLoader(TensorDataset(*data[:9]), 3)
    trainer = Trainer(*models, train_loader=DataLoader(data, 8, shuffle=True), held_out=held_out, config=config)
    trainer.fit()
    return trainer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pairs = itertools.cycle(PAIRS)  # What a condition sees is the base's, whatever the pair.
    cases: list[tuple[Any, ...]] = [(p, c, "same", "separate", {}) for p, c in zip(pairs, CONDITIONS, strict=False)]
    cases += [(p, "decrease:1", "next", "shared", {}) for p in PAIRS]
    cases += [(p, "decrease:1", "same", "separate", {"update": "joint", "teach": 0.5, "ema": 0.9}) for p in PAIRS]
    cases += [(p, "decrease:1", "same", "separate", {"student": "both", "teach": 0.5}) for p in PAIRS]
    for number, case in enumerate(cases):
        # One pair of each kind goes further. All conditions get to hold and not to hold in half as many steps.
        trainer = train(200 if number < len(PAIRS) else 88, *case)
        if os.environ.get("RANK", "0") == "0":
            steps = [row for row in trainer.record.last if row["kind"] == "step"]
            (folder / f"{number}.json").write_text(json.dumps([case, steps]))
            weights = {
                f"{name} {key}": tensor.detach().clone().contiguous()
                for name, learner in trainer.learners.items()
                for key, tensor in tensors(learner.module).items()
            }
            for name, average in trainer.run.averages.items():
                values = average.state_dict()["model"]["tensors"]
                weights |= {f"average {name} {key}": tensor.contiguous() for key, tensor in values.items()}
            save_file(weights, folder / f"{number}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
