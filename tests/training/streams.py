"""Streams, and runs over them whose steps take a millisecond."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tiny import TINY, Network
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from seeking import Trainer

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
DATA = TensorDataset(X, (X[:, 0] > 0).long())


class Stream(IterableDataset[Any]):
    """Passes of these numbers of samples, over and over; the whole data by default."""

    def __init__(self, *counts: int) -> None:
        self.counts = itertools.cycle(counts or (len(DATA),))

    def __iter__(self) -> Iterator[Any]:
        return (DATA[number] for number in range(next(self.counts)))


def trainer(
    loader: Any, output: Path | None = None, resume: bool = False, listeners: Any = (), **options: Any
) -> Trainer:
    torch.manual_seed(0)
    return Trainer(
        *(Network(3), Network(5)),
        train_loader=loader,
        eval_loader=DataLoader(DATA, 16),
        config=dataclasses.replace(TINY, **options),
        output=output,
        resume=resume,
        listeners=listeners,
    )


def rows(run: Trainer, kind: str = "step") -> list[dict[str, Any]]:
    kept = [row for row in run.record.rows() if row["kind"] == kind]
    return [{name: value for name, value in row.items() if name != "epoch"} for row in kept]
