"""Measures a pair by metrics of its own, alone or as one of several processes, and writes them (test_processes.py)."""

import json
import os
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torchmetrics.classification import MulticlassF1Score

from seeking import TrainConfig, Trainer


def network(width: int) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 5, generator=generator), torch.randint(3, (24,), generator=generator)
    for number, sizes in enumerate(([8, 8, 8], [7, 1, 9, 1, 6], [1], [23, 1])):  # One sample is the same in both.
        count = sum(sizes)
        trainer = Trainer(
            network(4),
            network(6),
            train_loader=[(x[:8], y[:8])],
            eval_loader=[*zip(x[:count].split(sizes), y[:count].split(sizes), strict=True)],
            metrics={
                "f1": MulticlassF1Score(3, average="macro"),
                "median": lambda outputs, targets: (outputs.max(1).values - targets).median(),
                "count": lambda outputs, targets: len(targets),
            },
            config=TrainConfig(epochs=1, precision="no", lr=0.0),
        )
        result = trainer.fit()
        if os.environ.get("RANK", "0") == "0":
            (folder / f"{number}.json").write_text(json.dumps(result.metrics))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
