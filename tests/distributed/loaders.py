"""Trains with loaders of many kinds, alone or as one of several processes (test_processes.py).

python tests/distributed/loaders.py FOLDER
torchrun --nproc-per-node 2 tests/distributed/loaders.py FOLDER
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.loader import MultiEpochsDataLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler

import seeking
from seeking.errors import LoadingError

RANK, PROCESSES = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
X = torch.randn(41, 6, generator=torch.Generator().manual_seed(1))
DATA = TensorDataset(X, X.argmax(1) % 3)


class Scaled(DataLoader[Any]):
    """Changes the batches, each by all of its samples."""

    def __iter__(self) -> Iterator[Any]:
        for x, y in super().__iter__():
            yield x - x.mean(0), y


class Stream(IterableDataset[Any]):
    def __len__(self) -> int:
        return len(DATA)

    def __iter__(self) -> Iterator[Any]:
        return (DATA[number] for number in torch.randperm(len(DATA)).tolist())


class Unsized(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return (DATA[number] for number in range(29))


class OfManySizes:
    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[list[int]]:
        numbers = torch.randperm(len(DATA)).tolist()
        for size in (1, 7, 2, 3, 11, 5):
            yield numbers[:size]


class Backwards(RandomSampler):
    def __iter__(self) -> Iterator[int]:
        return iter([*super().__iter__()][::-1])


class Around:
    """Not a DataLoader at all."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for x, y in self.loader:
            yield {
                "x": x,
                "y": y,
                "names": [str(label) for label in y.tolist()],
                "scale": 2.0,
                "count": torch.tensor(1),
            }


class Broken(DataLoader[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from [*super().__iter__()][:2]
        raise RuntimeError("the disk is gone")


LOADERS: dict[str, Callable[[], Any]] = {
    "plain": lambda: DataLoader(DATA, 8),
    "uneven": lambda: DataLoader(DATA, 5, shuffle=True),
    "small": lambda: DataLoader(DATA, 1),
    "workers": lambda: DataLoader(DATA, 8, shuffle=True, num_workers=2, persistent_workers=True),
    "scaled": lambda: Scaled(DATA, 8, shuffle=True),
    "epochs": lambda: MultiEpochsDataLoader(DATA, 8, shuffle=True, num_workers=1),
    "repeated": lambda: DataLoader(DATA, 7, sampler=RepeatAugSampler(DATA, 1, 0, selected_round=0, selected_ratio=2)),
    "weighted": lambda: DataLoader(DATA, 8, sampler=WeightedRandomSampler(torch.rand(41), 30)),
    "generator": lambda: DataLoader(DATA, 8, shuffle=True, generator=torch.Generator().manual_seed(5)),
    "sampler": lambda: DataLoader(DATA, 8, sampler=Backwards(DATA)),
    "batches": lambda: DataLoader(DATA, batch_sampler=OfManySizes()),
    "stream": lambda: DataLoader(Stream(), 8),
    "unsized": lambda: DataLoader(Unsized(), 8),
    "whole": lambda: DataLoader([DATA[:20], DATA[20:]], batch_size=None),
    "list": lambda: [DATA[:9], DATA[9:10], DATA[10:]],
    "around": lambda: Around(DataLoader(DATA, 8, shuffle=True)),
}


def streamed(change: Callable[[Any], Any]) -> Any:
    """A stream of ``datasets``, in four parts."""
    rows = Dataset.from_dict({"x": X[:40].tolist(), "y": (X[:40].argmax(1) % 3).tolist()})
    return DataLoader(change(rows.to_iterable_dataset(num_shards=4)), 8, collate_fn=collate)


def collate(rows: list[dict[str, Any]]) -> Any:
    return torch.tensor([row["x"] for row in rows]), torch.tensor([row["y"] for row in rows])


STREAMS: dict[str, Callable[[Any], Any]] = {
    "read by the first process": lambda rows: rows.map(lambda row: row),
    "shuffled": lambda rows: rows.shuffle(seed=1, buffer_size=7),
    "each process its own part": lambda rows: split_dataset_by_node(rows, RANK, PROCESSES),
    "each its own, shuffled": lambda rows: split_dataset_by_node(rows.shuffle(seed=1, buffer_size=7), RANK, PROCESSES),
}


def loss_fn(model: nn.Module, batch: Any) -> Tensor:
    if isinstance(batch, dict):
        assert batch["names"] == [str(label) for label in batch["y"].tolist()]
        batch = batch["x"], batch["y"]
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def train(
    loader: Any, evaluation: Any, accumulate: int = 1, max_steps: int | None = None, **options: Any
) -> seeking.Trainer:
    base, motivated = (nn.Sequential(nn.Linear(6, w), nn.Tanh(), nn.Linear(w, 3)) for w in (8, 16))
    config = seeking.TrainConfig(
        epochs=2,
        lr=0.1,
        max_steps=max_steps,
        accumulate=accumulate,
        condition="decrease:1",
        device="cpu",
        precision="no",
        verify=False,
        schedule="constant" if "output" in options else "cosine",
    )
    trainer = seeking.Trainer(
        base, motivated, train_loader=loader, eval_loader=evaluation, loss_fn=loss_fn, config=config, **options
    )
    trainer.fit()
    return trainer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if PROCESSES > 1:
        torch.distributed.init_process_group("gloo")
    for name, make in LOADERS.items():
        torch.manual_seed(0)
        trainer = train(make(), make(), accumulate=2, max_steps=7 if name == "unsized" else None)
        if RANK == 0:
            weights = [learner.module.state_dict() for learner in trainer.learners.values()]
            numbers = [number for state in weights for tensor in state.values() for number in tensor.flatten().tolist()]
            result = {"weights": numbers, "history": [*trainer.record.rows()]}
            (folder / f"{name}.json").write_text(json.dumps(result))
    for name, change in STREAMS.items() if PROCESSES > 1 else ():  # Of one process, test_streams.py has more.
        torch.manual_seed(0)
        whole = train(streamed(change), None, max_steps=7, output=folder / f"{name}, whole")
        torch.manual_seed(0)
        train(streamed(change), None, max_steps=3, output=folder / name)
        resumed = train(streamed(change), None, max_steps=7, output=folder / name, resume=True)
        for uninterrupted, continued in zip(whole.learners.values(), resumed.learners.values(), strict=True):
            for tensor, same in zip(uninterrupted.module.parameters(), continued.module.parameters(), strict=True):
                assert torch.equal(tensor, same), name
    torch.manual_seed(0)
    # Each process may bring its own part of the data.
    own = DistributedSampler(DATA, PROCESSES, RANK, shuffle=False)
    trainer = train(DataLoader(DATA, 8 // PROCESSES, sampler=own), MultiEpochsDataLoader(DATA, 41, sampler=own))
    assert trainer.run.cost.samples == 2 * (42 if PROCESSES == 2 else 41)
    if PROCESSES > 1:
        with pytest.raises(seeking.SeekingError, match=f"is for process 0 of 3, but this is process {RANK} of 2"):
            train(DataLoader(DATA, sampler=DistributedSampler(DATA, 3, 0)), None)
        with pytest.raises(LoadingError, match="RuntimeError: the disk is gone"):
            train(Broken(DATA, 8), None)
        with pytest.raises(LoadingError, match=r"a batch of 4 samples holds a tensor of shape \[2\]"):
            train([(torch.zeros(4, 6), torch.zeros(2))], None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
