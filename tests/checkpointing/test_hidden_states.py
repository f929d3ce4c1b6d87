"""Losses that carry hidden states from batch to batch, as in truncated backpropagation through time."""

import dataclasses
import functools
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from resuming import interrupted_run, same, whole_run
from runs import PLAIN
from torch import Tensor, nn

from seeking import SeekingError, Trainer
from seeking.checkpointing.resume import capture_state, restore_state
from seeking.weights_map import tensors

BATCHES = [
    (torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(i)), torch.full((4, 6, 1), 0.1 * i)) for i in range(6)
]
CONFIG = dataclasses.replace(PLAIN, epochs=2, condition="every:2", weight_decay=0.0)


class Recurrent(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(3, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, hidden = self.gru(x, hidden)
        return self.out(outputs), hidden


class Truncated:
    """Keeps the last hidden state of each size; there is none before the first batch."""

    def __init__(self) -> None:
        self.hidden: dict[int, Tensor] = {}

    def __call__(self, model: Recurrent, batch: tuple[Tensor, Tensor]) -> Tensor:
        size = model.gru.hidden_size
        outputs, hidden = model(batch[0], self.hidden.get(size))
        if model.training:
            self.hidden[size] = hidden.detach()
        return F.mse_loss(outputs, batch[1])

    def state_dict(self) -> dict[str, Tensor]:
        return {str(size): hidden for size, hidden in self.hidden.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.hidden = {int(size): hidden for size, hidden in state.items()}


class TruncatedModule(nn.Module):
    """The same, as buffers: one is None at first, the others come with their model's first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hidden8", None)

    def forward(self, model: Recurrent, batch: tuple[Tensor, Tensor]) -> Tensor:
        name = f"hidden{model.gru.hidden_size}"
        outputs, hidden = model(batch[0], getattr(self, name, None))
        if model.training:
            self.register_buffer(name, hidden.detach())
        return F.mse_loss(outputs, batch[1])


LOSSES = [Truncated, TruncatedModule]


def make(loss: Callable[[], Any] = Truncated, **kwargs: Any) -> Trainer:
    torch.manual_seed(0)
    kwargs = {"config": CONFIG, **kwargs}
    models = Recurrent(8), Recurrent(16)
    return Trainer(*models, train_loader=BATCHES, eval_loader=BATCHES[:2], loss_fn=loss(), **kwargs)


class Locked(Truncated):
    """The same, with attributes that cannot be copied, one of them in a list."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        super().__init__()
        self.others = [threading.Lock(), self.hidden]


class Slotted(Truncated):
    """The same in a slot, with what cannot be copied beside it in a container with a default."""

    __slots__ = ("__others", "hidden")

    def __init__(self) -> None:
        super().__init__()
        self.__others = defaultdict(list, locks=[threading.Lock()], hidden=[self.hidden])


WAYS: list[Callable[[Truncated], Any]] = [
    lambda loss: loss,
    lambda loss: loss.__call__,
    lambda loss: lambda model, batch: loss(model, batch),
    functools.partial(functools.partial, Truncated.__call__),
    lambda loss: functools.partial(lambda own, model, batch: own[0](model, batch), (loss,)),
]
"""Ways to give a loss."""


@pytest.mark.parametrize("kind", [Truncated, Locked, Slotted])
@pytest.mark.parametrize("way", WAYS)
def test_runs_before_training_leave_no_hidden_state_behind(way: Callable[[Truncated], Any], kind: type) -> None:
    own = kind()
    config = dataclasses.replace(CONFIG, condition="never", verify=True)
    trainer = make(lambda: way(own), config=config)
    assert not own.hidden
    learner = trainer.learners["base"]
    torch.manual_seed(0)
    model, loss_fn = Recurrent(8), Truncated()
    assert all(map(torch.equal, model.parameters(), learner.module.parameters()))
    optimizer = type(learner.optimizer)(model.parameters(), **learner.optimizer.defaults)
    rates = [row["lr"] for row in trainer.fit().history if row["kind"] == "step"]
    for rate, batch in zip(rates, BATCHES * 2, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    torch.testing.assert_close(tensors(model), tensors(learner.module))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("at", [[1], [3, 8]])
def test_hidden_states_that_come_with_the_first_batch_are_resumed(at: list[int], loss: type, tmp_path: Path) -> None:
    outputs = tmp_path / "whole", tmp_path / "parts"
    config, make_run = dataclasses.replace(CONFIG, save_every="1"), functools.partial(make, loss)
    same(whole_run(make_run, outputs[0], config), interrupted_run(make_run, outputs[1], config, at), outputs)


def test_parts_without_a_state_may_come_and_go() -> None:
    empty, full = nn.Module(), nn.Linear(1, 1)
    for before, now in (({}, {"loss": empty}), ({"loss": empty}, {})):
        restore_state(now, capture_state(before, {}))
    for before, now in (({}, {"loss": full}), ({"loss": full}, {})):
        with pytest.raises(SeekingError, match="the run had the parts"):
            restore_state(now, capture_state(before, {}))
