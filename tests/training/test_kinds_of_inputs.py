"""Inputs that are no plain tensors: sparse ones, sequences of several lengths."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs import PLAIN
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence, pad_sequence

from seeking import SeekingError, Trainer

GENERATOR = torch.Generator().manual_seed(0)
SEQUENCES = [torch.randn(2 + n % 3, 5, generator=GENERATOR).relu() for n in range(32)]
LABELS = torch.randint(3, (32,), generator=GENERATOR)

KINDS: dict[str, Callable[[list[Tensor]], Any]] = {
    "packed": lambda samples: pack_sequence(samples, enforce_sorted=False),
    "jagged": lambda samples: torch.nested.nested_tensor(samples, layout=torch.jagged),
    "coo": lambda samples: pad_sequence(samples, batch_first=True).sum(1).to_sparse_coo(),
    "csr": lambda samples: pad_sequence(samples, batch_first=True).sum(1).to_sparse_csr(),
}


def plain(inputs: Any) -> Tensor:
    if isinstance(inputs, PackedSequence):
        return pad_packed_sequence(inputs, batch_first=True)[0]
    if inputs.is_nested:
        return inputs.to_padded_tensor(0.0)
    return inputs if inputs.layout == torch.strided else inputs.to_dense()


class Network(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, width), nn.Linear(width, 3)

    def forward(self, inputs: Any) -> Tensor:
        hidden = self.first(plain(inputs)).relu()
        return self.last(hidden.mean(1) if hidden.ndim == 3 else hidden)


def trained(batches: list[Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    config = dataclasses.replace(PLAIN, epochs=1, condition="always")
    trainer = Trainer(Network(4), Network(8), train_loader=batches, eval_loader=batches, config=config)
    trainer.fit()
    return trainer.pair.motivated_model.state_dict()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_any_kind_train_as_the_plain_tensor(kind: str) -> None:
    batches = [(KINDS[kind](SEQUENCES[n : n + 8]), LABELS[n : n + 8]) for n in range(0, 32, 8)]
    expected = trained([(plain(inputs), labels) for inputs, labels in batches])
    for name, tensor in trained(batches).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nested_tensors_without_sizes_are_refused_in_words() -> None:
    with pytest.raises(SeekingError, match=r"make them with layout=torch\.jagged"):
        trained([(torch.nested.nested_tensor(SEQUENCES[:8]), LABELS[:8])])


def test_arrays_train_and_count_as_tensors() -> None:
    """Also batches of several sizes, whose means and FLOPs are by their samples."""

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = map(torch.as_tensor, batch)
        return F.cross_entropy(model(inputs), labels)

    inputs = pad_sequence(SEQUENCES, batch_first=True)
    parts = list(zip(inputs.split((8, 16, 8)), LABELS.split((8, 16, 8)), strict=True))
    results = []
    for batches in (parts, [(each.numpy(), labels.numpy()) for each, labels in parts]):
        torch.manual_seed(0)
        config = dataclasses.replace(PLAIN, epochs=1, condition="always")
        data = {"train_loader": batches, "eval_loader": batches}
        trainer = Trainer(Network(4), Network(8), **data, loss_fn=loss_fn, config=config)
        result = trainer.fit()
        results.append((result.metrics, result.cost.report(), trainer.pair.motivated_model.last.weight.tolist()))
    assert results[0] == results[1]
