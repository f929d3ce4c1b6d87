"""Samples that are told apart by their first number, and a loss that remembers them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from seeking import TrainConfig

DATA = TensorDataset(torch.arange(22.0)[:, None] + torch.arange(3) / 10, torch.arange(22) % 3)


def models() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 3)) for width in (4, 6)]


class Seen:
    """A loss that remembers the batches of the base's steps, or of its evaluations."""

    def __init__(self, base: nn.Module, training: bool = True) -> None:
        self.base, self.training, self.batches = base, training, []  # type: ignore[var-annotated]

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        if model is self.base and model.training is self.training:
            self.batches.append(batch[0][:, 0].tolist())
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


def config(**options: Any) -> TrainConfig:
    return TrainConfig(
        **{"epochs": 3, "lr": 1e-3, "device": "cpu", "precision": "no", "condition": "every:2", **options}
    )
