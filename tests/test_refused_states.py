"""States of optimizers that cannot be shared are refused."""

import contextlib
from typing import Any

import pytest
import torch
from torch import nn
from watched_models import Packed, mlp, pair_of

import seeking
from seeking.errors import SeekingError


def test_state_that_is_not_shaped_like_its_parameter_is_refused() -> None:
    pair = seeking.Pair(*pair_of(mlp))
    optimizers = tuple(torch.optim.Adafactor(m.parameters()) for m in (pair.base, pair.motivated_model))
    pair.base(torch.randn(2, 3)).sum().backward()
    optimizers[0].step()
    with pytest.raises(SeekingError, match="Adafactor of the base"), pair.motivated(optimizers):
        pass


class PackedSGD(torch.optim.SGD):
    """Keeps its momentum in blocks of few bits, as 8-bit optimizers do; of small tensors as it is."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for parameter, state in self.state.items():
            if parameter.numel() % 256 == 0:
                state["momentum_buffer"] = Packed(parameter.detach())


def test_state_in_other_tensors_is_refused_before_it_is_shared() -> None:
    """Whole tensors are tied, and share it as it is."""

    def layers(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 64))

    def sgd(model: nn.Module) -> PackedSGD:
        return PackedSGD(model.parameters(), 0.1, momentum=0.9)

    for width in (64, 128):
        pair = seeking.Pair(layers(64), layers(width))
        optimizers = sgd(pair.base), sgd(pair.motivated_model)
        pair.base(torch.randn(2, 3)).sum().backward()
        optimizers[0].step()
        refused = pytest.raises(SeekingError, match=r"PackedSGD of the base: its state 'momentum_buffer' for 1.weight")
        with refused if width > 64 else contextlib.nullcontext(), pair.motivated(optimizers):
            pass
    config = seeking.TrainConfig(epochs=1, optimizer_state="shared")
    data = [(torch.randn(2, 3), torch.tensor([0, 1]))]
    with pytest.raises(SeekingError, match=r"PackedSGD: its state .*set optimizer_state to separate"):
        seeking.Trainer(layers(64), layers(128), train_loader=data, config=config, optimizer=sgd)
