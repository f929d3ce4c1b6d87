"""Trains a pair alone, or sharded over several processes by FSDP2, and writes what came out (test_processes.py).

python tests/distributed/sharded.py FOLDER
torchrun --nproc-per-node 2 tests/distributed/sharded.py FOLDER
"""

import os
import signal
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
from seeking.distributed.sharding import sharded_parameters as sharded

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
    for number in range(24):
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
            with torch.no_grad():
                pair.motivated_model(x[own])
    both = {"base": pair.base, "motivated": pair.motivated_model}
    named = {f"{role}.{name}": p.detach() for role, model in both.items() for name, p in model.named_parameters()}
    return {name: (p.full_tensor() if isinstance(p, DTensor) else p).clone() for name, p in named.items()}


class Photos(Net):
    """Of patches of images of three channels."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__(width, depth)
        self.stem = nn.Conv2d(3, width, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).flatten(2).transpose(1, 2))).mean(dim=1)


class Methods(Net):
    """Whose block is not called itself."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks[0].inner(self.stem(x))[..., : self.head.in_features])


class Ending(TensorDataset):
    """Asks for a stop when it is read after the last step."""

    over = False

    def __getitem__(self, index: int) -> Any:
        if self.over:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


def trainer(output: Path, *models: nn.Module, resume: bool = False, loss_fn: Any = None, **options: Any) -> Trainer:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(100, *((3, 4, 4) if isinstance(models[0], Photos) else (6,)), generator=draw)
    y = x.flatten(1).argmax(-1) % 3
    config = TrainConfig(
        **{"epochs": 3, "schedule": "constant", "condition": "decrease:1", "lr": 0.01, "precision": "no", **options},
        shard=PROCESSES > 1,
        clip_grad=1.0,
    )
    seen = Ending(x, y)

    def listen(row: dict[str, Any]) -> None:
        seen.over = row["kind"] == "step" and row["step"] == 9 and len(models) == 1

    loaders = {"train_loader": DataLoader(TensorDataset(x, y), 10, shuffle=True), "eval_loader": DataLoader(seen, 30)}
    return Trainer(*models, **loaders, loss_fn=loss_fn, config=config, output=output, resume=resume, listeners=[listen])


def weights_kept(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, list[int]]:
    """The loss, and for each weight of a block that the backward pass needs, the bytes that are kept for it."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        if set(tensor.shape) == {8, 16}:
            kept.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = F.cross_entropy(model(x), y)
    return loss, [tensor.untyped_storage().nbytes() for tensor in kept]


def by_halves(folder: Path) -> None:
    kept: list[int] = []

    def loss_fn(model: nn.Module, batch: list[Tensor]) -> Tensor:
        loss, bytes_kept = weights_kept(model, *batch)
        kept.extend(bytes_kept)
        return loss

    halves = trainer(folder / "bf16", *pair_of(Photos), precision="bf16", condition="every:2", loss_fn=loss_fn)
    kept.clear()
    halves.fit()
    assert kept
    assert any(kept) is (PROCESSES == 1), "weights are gathered in bf16, and let go of before the backward pass"


def pair_of(kind: type[Net], wide: int = 8) -> list[Net]:
    torch.manual_seed(0)
    return [kind(8, 1), kind(wide, 3)]


def by_the_trainer(folder: Path) -> None:
    adamw: dict[str, Any] = {"optimizer": "adamw", "optimizer_state": "shared"}
    for name, options in (("sgd", {}), ("adamw", adamw)):
        trained = trainer(folder / name, *pair_of(Photos), **options)
        trained.fit()
        assert_stored_once(trained.pair)
    by_halves(folder)
    with pytest.raises(SystemExit):
        trainer(folder / "stopped", pair_of(Photos)[1]).fit()
    if PROCESSES == 1:
        trainer(folder / "longer", *pair_of(Photos), epochs=4).fit()
        return
    trainer(folder / "resumed", *pair_of(Photos), epochs=1).fit()
    trainer(folder / "resumed", *pair_of(Photos), resume=True).fit()
    trainer(folder / "longer", *pair_of(Photos), epochs=4, resume=True).fit()  # What one process has begun.
    refused = (
        (pair_of(Net, wide=12), {}, "only pairs that differ in depth"),
        (pair_of(Methods), {}, "cannot be sharded"),
        (pair_of(Net), {"optimizer": "adafactor"}, "so it cannot be sharded"),
        ([nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))], {}, "has running statistics"),
    )
    for models, options, why in refused:
        with pytest.raises(seeking.SeekingError, match=why):
            trainer(folder / "refused", *models, **options)


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
        weights = train(pair, shared)
        if RANK == 0:
            save_file(weights, folder / f"{shared}.safetensors")
        assert_stored_once(pair)
    if PROCESSES > 1:
        with pytest.raises(seeking.SeekingError, match="only pairs that differ in depth"):
            train(paired(wide=12), False)
    by_the_trainer(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
