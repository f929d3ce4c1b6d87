"""Lets the loss fail in one of several processes, and writes what each of them made of it (test_processes.py).

torchrun --nproc-per-node 2 tests/distributed/failing.py FOLDER
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
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import TrainConfig, Trainer

RANK = int(os.environ.get("RANK", "0"))


class Failure:
    """A loss that fails in one process, in one micro-batch of the run, before, within or after the model's forward."""

    def __init__(self, process: int, model: str, where: str, at: int) -> None:
        self.process, self.model, self.where, self.at = process, model, where, at
        self.calls = 0
        self.armed = False

    def __call__(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        x, labels = batch
        fails = False
        if self.armed and model.training and ("motivated" if wide(model) else "base") == self.model:
            self.calls += 1
            fails = self.process == RANK and self.calls == self.at
        if fails and self.where == "before":
            raise ValueError("the loss fails")
        logits = model(x[:, :1] if fails and self.where == "within" else x)
        if fails:
            raise ValueError("the loss fails")
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def wide(model: nn.Module) -> bool:
    return next(iter(model.parameters())).shape[0] > 4


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))


def make(folder: Path, loss: Failure, accumulate: int, teach: float) -> Trainer:
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    taught: dict[str, Any] = {"teach": teach, "student": "both"} if teach else {}
    config = TrainConfig(
        epochs=2, condition="always", precision="no", accumulate=accumulate, save_every="100", **taught
    )
    loader = DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), 8, shuffle=True)
    return Trainer(network(4), network(6), train_loader=loader, loss_fn=loss, config=config, output=folder, resume=True)


def weights(trainer: Trainer) -> list[float]:
    """Sums of all parameters; running statistics differ between processes until the next forward."""
    parts = [learner.module for learner in trainer.learners.values()]
    return [float(parameter.double().sum()) for part in parts for parameter in part.parameters()]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    never = Failure(-1, "", "", 0)
    wholes = {}
    for accumulate, teach in itertools.product((1, 2), (0.0, 0.5)):
        whole = make(folder / f"whole {accumulate} {teach}", never, accumulate, teach)
        whole.fit()
        wholes[accumulate, teach] = weights(whole)
    cases = itertools.product((0.0, 0.5), ("base", "motivated"), ("before", "within", "after"))
    results = []
    for number, (teach, model, where) in enumerate(cases):
        process, accumulate = ((0, 2), (1, 1), (1, 2))[(number + number // 3) % 3]
        # With two micro-batches, in the first of the third step, or in the second of the second.
        loss = Failure(process, model, where, at=5 - (accumulate == 2 and number % 2))
        trainer = make(folder / str(number), loss, accumulate, teach)
        loss.armed = True
        error = ""
        try:
            trainer.fit()
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure} {getattr(failure, '__notes__', '')}"
        case = {"process": process, "model": model, "where": where, "at": loss.at, "accumulate": accumulate}
        case["teach"] = teach
        row = {**case, "error": error, "step": trainer.progress.step, "weights": weights(trainer)}
        resumed = make(folder / str(number), never, accumulate, teach)
        row |= {"resumed": resumed.progress.step, "same": weights(resumed) == row["weights"]}
        resumed.fit()
        results.append({**row, "end": resumed.progress.step, "as_whole": weights(resumed) == wholes[accumulate, teach]})
    (folder / f"{RANK}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
