"""Trains a pair alone, or sharded over several processes by FSDP2, and writes what came out (test_processes.py).

python tests/sharded.py FOLDER
torchrun --nproc-per-node 2 tests/sharded.py FOLDER
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, TensorDataset

import seeking
from seeking import TrainConfig, Trainer
from seeking.sharding import sharded

RANK, PROCESSES = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inner, self.outer = (
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(F.gelu(self.inner(self.norm(x))))


class Net(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, width), nn.Linear(width, 3)  # 3 does not divide by 2.
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


def paired(wide: int = 8) -> seeking.Pair:
    torch.manual_seed(0)
    pair = seeking.Pair(Net(8, 1), Net(wide, 3))
    if PROCESSES > 1:
        mesh = init_device_mesh("cpu", (PROCESSES,))
        for model in (pair.base, pair.motivated_model):
            for block in model.blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh)
    return pair


def train(pair: seeking.Pair, shared: bool) -> dict[str, Tensor]:
    optimizers = tuple(torch.optim.AdamW(m.parameters(), lr=1e-2) for m in (pair.base, pair.motivated_model))
    draw = torch.Generator().manual_seed(1)
    for number in range(50):
        x, y = torch.randn(8, 6, generator=draw), torch.randint(3, (8,), generator=draw)
        own = slice(RANK * 8 // PROCESSES, (RANK + 1) * 8 // PROCESSES)

        def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        step(pair.base, optimizers[0], x[own], y[own])
        if number % 2:
            with pair.motivated(optimizers if shared else None) as model:
                step(model, optimizers[1], x[own], y[own])
        if number % 5 == 0:  # What an evaluation has gathered must not be used any more.
            with torch.no_grad(), pair.motivated() as model:
                pair.base(x[own]), model(x[own])
    both = {"base": pair.base, "motivated": pair.motivated_model}
    named = {f"{role}.{name}": p.detach() for role, model in both.items() for name, p in model.named_parameters()}
    return {name: (p.full_tensor() if isinstance(p, DTensor) else p).clone() for name, p in named.items()}


def fit(output: Path, *, wide: int = 8, shared: bool = False, resume: bool = False, **options: Any) -> Trainer:
    torch.manual_seed(0)
    x = torch.randn(100, 6)
    data = TensorDataset(x, x.argmax(-1) % 3)
    state = "shared" if shared else "separate"
    config = TrainConfig(
        **{"epochs": 3, "optimizer": "adamw", "lr": 0.01, "schedule": "constant", "condition": "decrease:1", **options},
        optimizer_state=state,
        precision="no",
        shard=PROCESSES > 1,
        clip_grad=1.0,
    )
    loaders = {"train_loader": DataLoader(data, 10, shuffle=True), "eval_loader": DataLoader(data, 30)}
    trainer = Trainer(Net(8, 1), Net(wide, 3), **loaders, config=config, output=output, resume=resume)
    trainer.fit()
    return trainer


def by_the_trainer(folder: Path) -> None:
    for shared in (False, True):
        assert_stored_once(fit(folder / f"trainer-{shared}", shared=shared).pair)
    if PROCESSES > 1:
        fit(folder / "resumed", epochs=1)
        fit(folder / "resumed", resume=True)
        with pytest.raises(seeking.SeekingError, match="only pairs that differ in depth"):
            fit(folder / "refused", wide=12)


def assert_stored_once(pair: seeking.Pair) -> None:
    """Each process holds the shared part once."""
    held = [{p._sharded_param_data.data_ptr() for p in sharded(m).values()} for m in (pair.base, pair.motivated_model)]
    assert held[0] <= held[1]
    assert PROCESSES == 1 or len(held[1]) > len(held[0]) > 0


def main(folder: Path) -> None:
    if PROCESSES > 1:
        torch.distributed.init_process_group("gloo")
    for shared in (False, True):
        pair = paired()
        found = train(pair, shared)
        if RANK == 0:
            save_file(found, folder / f"{shared}.safetensors")
        assert_stored_once(pair)
    if PROCESSES > 1:
        with pytest.raises(seeking.SeekingError, match="only pairs that differ in depth"):
            train(paired(wide=12), False)
    by_the_trainer(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
