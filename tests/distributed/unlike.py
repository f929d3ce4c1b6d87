"""Gives two processes what is not alike, and writes what comes of it (test_processes.py).

torchrun --nproc-per-node 2 tests/distributed/unlike.py FOLDER
"""

import json
import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import Condition, TrainConfig, Trainer
from seeking.errors import SeekingError

RANK = int(os.environ.get("RANK", "0"))


class Moody(Condition):
    """Draws random numbers, which are not the same in both processes."""

    def holds(self, loss: float, **signals: Any) -> bool:
        return random.random() < 0.5


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


def make(loader: Any, folder: Path | None = None, condition: Condition | None = None, **options: Any) -> Trainer:
    torch.manual_seed(0)
    config = TrainConfig(**{"epochs": 2, "precision": "no", **options})
    models = network(4), network(6)
    return Trainer(*models, train_loader=loader, eval_loader=loader, config=config, condition=condition, output=folder)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    random.seed(RANK)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 0).long()

    def loader(start: int = 0, end: int = 64) -> DataLoader[Any]:
        return DataLoader(TensorDataset(x[start:end], y[start:end]), 8)

    trained = {}
    for name, options in (("motivated", {}), ("base", {"base_condition": f"{__name__}.Moody"})):
        trainer = make(loader(), condition=Moody(), **options)
        history = [*trainer.fit().history]
        weights = [
            float(parameter.double().sum()) for model in trainer.learners.values() for parameter in model.parameters
        ]
        trained[name] = {"rows": [sorted(row) for row in history], "weights": weights}

    refused = {}
    for name, build in {
        "lr": lambda: make(loader(), lr=0.1 + RANK),
        "epochs": lambda: make(loader(), epochs=1 + RANK),
        "ema": lambda: make(loader(), ema=0.5 if RANK else None),
        "number of batches": lambda: make(loader(0, 32 + 16 * RANK)),
        "data": lambda: make(loader(32 * RANK, 32 + 32 * RANK)),
        "output": lambda: make(loader(), folder / "run" if RANK else None),
    }.items():
        try:
            build()
        except SeekingError as error:
            refused[name] = str(error)
    (folder / f"{RANK}.json").write_text(json.dumps({"trained": trained, "refused": refused}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
