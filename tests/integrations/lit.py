"""A pair under Lightning, alone or as one of several processes.

python tests/integrations/lit.py FOLDER
torchrun --nproc-per-node 2 tests/integrations/lit.py FOLDER
"""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from seeking import Condition, ConsecutiveDecrease, Pair
from seeking.integrations.lightning import MotivatedModule

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


def network(width: int, depth: int = 1) -> nn.Sequential:
    blocks = (nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth))
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), *blocks, nn.Linear(width, 2))


class Classifier(L.LightningModule):
    """As a user writes one."""

    def __init__(self, width: int, unused: bool = False) -> None:
        super().__init__()
        self.net = network(width)
        self.untrained = nn.Linear(4, 2) if unused else None  # DDP has to know of weights without gradients.

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if self.untrained is None else self.net(x) + self.untrained(x).detach()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def data(size: int = 4, seed: int = 1) -> DataLoader[Any]:
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), size)


class InFirst(Condition):
    """Decides otherwise in the second process, as one that draws random numbers may."""

    def holds(self, loss: float, **signals: Any) -> bool:
        return os.environ.get("RANK", "0") == "0"


def loss_fn(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


KINDS = ("loss_fn", "modules")


def module(kind: str = "loss_fn", condition: Condition | str = "every:2", unused: bool = False) -> MotivatedModule:
    torch.manual_seed(0)
    if kind == "modules":
        return MotivatedModule(Pair(*(Classifier(width, unused) for width in (3, 5))), condition=condition)
    return MotivatedModule(
        Pair(network(3), network(5)),
        condition=condition,
        loss_fn=loss_fn,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
    )


def lightning(folder: Path, **options: Any) -> L.Trainer:
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger"), False)
    return L.Trainer(**{"max_epochs": 3, "accelerator": "cpu", "default_root_dir": folder, **quiet, **options})


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    left, right = ours.state_dict(), theirs.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def main(folder: Path, processes: int) -> None:
    torch.set_num_threads(1)

    def trained(kind: str, ckpt_path: Path | None = None, **options: Any) -> tuple[MotivatedModule, L.Trainer]:
        of_pair = module(kind, InFirst() & ConsecutiveDecrease(1), unused=True)
        loader = data(4)
        if processes > 1:  # Lightning's own sampler would shuffle; this one deals each batch out.
            rank = int(os.environ["RANK"])
            sampler = DistributedSampler(loader.dataset, processes, rank, shuffle=False)
            loader = DataLoader(loader.dataset, 4 // processes, sampler=sampler)
        strategy = "ddp" if kind == "loss_fn" else "ddp_find_unused_parameters_true"
        options |= {"devices": processes, "strategy": strategy if processes > 1 else "auto"}
        trainer = lightning(folder, gradient_clip_val=0.3, use_distributed_sampler=False, **options)
        trainer.fit(of_pair, loader, data(24), ckpt_path=ckpt_path)
        return of_pair, trainer

    for kind in ("loss_fn", "modules"):
        trained(kind)[1].save_checkpoint(folder / f"{kind}.ckpt")
        low: dict[str, Any] = {"precision": "bf16-mixed", "accumulate_grad_batches": 2}
        saving = ModelCheckpoint(folder / kind, filename="{epoch}", save_top_k=-1)
        whole, trainer = trained(kind, **low, callbacks=[saving])
        trainer.save_checkpoint(folder / f"{kind}, bf16.ckpt")
        if processes > 1:
            resumed, _ = trained(kind, folder / kind / "epoch=0.ckpt", **low)
            for tensor, same in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
                assert torch.equal(tensor, same)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1")))
