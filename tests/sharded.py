"""Trains a pair alone, or sharded over several processes by FSDP2, and writes what came out (test_processes.py).

python tests/sharded.py FOLDER
torchrun --nproc-per-node 2 tests/sharded.py FOLDER
"""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import seeking
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
    both = {"base": pair.base, "motivated": pair.motivated_model}
    named = {f"{role}.{name}": p.detach() for role, model in both.items() for name, p in model.named_parameters()}
    return {name: (p.full_tensor() if isinstance(p, DTensor) else p).clone() for name, p in named.items()}


def main(folder: Path) -> None:
    if PROCESSES > 1:
        torch.distributed.init_process_group("gloo")
    for shared in (False, True):
        pair = paired()
        found = train(pair, shared)
        if RANK == 0:
            save_file(found, folder / f"{shared}.safetensors")
        held = [
            {p._sharded_param_data.data_ptr() for p in sharded(m).values()} for m in (pair.base, pair.motivated_model)
        ]
        assert held[0] <= held[1], "each process holds the shared part once"
        assert PROCESSES == 1 or len(held[1]) > len(held[0]) > 0
    if PROCESSES > 1:
        with pytest.raises(seeking.SeekingError, match="only pairs that differ in depth"):
            train(paired(wide=12), False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
