"""What is numbered by layer, and recurrent layers over packed sequences."""

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import seeking


def exact(base: nn.Module, motivated: nn.Module, batch: Any, **options: Any) -> seeking.WeightsMap:
    weights_map = seeking.match(base, motivated, batch=batch, **options)
    verdict = seeking.verify(base, motivated, weights_map, batch)
    assert verdict, verdict.reason
    return weights_map


class Heads(nn.Module):
    """Layers, and heads by the number of the layer that they follow."""

    def __init__(self, exits: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(6))
        self.exits = nn.ModuleDict({str(at): nn.Linear(5, 3) for at in exits})

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(len(x), 3)
        for at, layer in enumerate(self.layers):
            x = x + layer(x).relu()
            if str(at) in self.exits:
                out = out + self.exits[str(at)](x)
        return out


@settings(max_examples=25)
@given(exits=st.sets(st.integers(0, 5), min_size=1), more=st.sets(st.integers(0, 5)), order=st.randoms())
def test_modules_whose_numbers_are_names_are_matched_by_name(exits: set[int], more: set[int], order: Any) -> None:
    numbers = [*(exits | more)]
    order.shuffle(numbers)
    base, motivated = Heads(sorted(exits)), Heads(numbers)
    weights_map = seeking.match(base, motivated, batch=torch.randn(2, 5))
    counted = sorted(exits) == [*range(len(exits))]
    assert counted or all(entry.target == name for name, entry in weights_map.entries.items() if "exits" in name)


class Gated(nn.Module):
    """A parameter with an entry, or a row, for each layer."""

    def __init__(self, depth: int, width: int, taken: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gates = nn.Parameter(torch.randn(depth))
        self.scales = nn.Parameter(torch.randn(depth, width))
        self.stem, self.out, self.taken = nn.Linear(5, width), nn.Linear(width, 3), taken

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gates = self.gates if self.taken == "iterated" else [self.gates[i] for i in range(len(self.gates))]
        for gate, scale, block in zip(gates, self.scales, self.blocks, strict=True):
            x = x + gate * block(x) * scale
        return self.out(x)


@settings(max_examples=25)
@given(
    depth=st.integers(1, 3),
    more=st.integers(1, 3),
    widths=st.tuples(st.integers(2, 4), st.integers(0, 3)),
    policy=st.sampled_from(["leading", "spread"]),
    taken=st.sampled_from(["iterated", "indexed"]),
)
def test_entries_by_layer_go_where_their_layers_go(
    depth: int, more: int, widths: tuple[int, int], policy: Any, taken: str
) -> None:
    base, motivated = Gated(depth, widths[0], taken), Gated(depth + more, sum(widths), taken)
    weights_map = exact(base, motivated, torch.randn(2, 5), depth=policy)
    blocks = [int(weights_map.entries[f"blocks.{number}.bias"].target.split(".")[1]) for number in range(depth)]
    assert [*weights_map.entries["gates"].index[0]] == blocks
    assert [*weights_map.entries["scales"].index[0]] == blocks


class Tagger(nn.Module):
    """A recurrent layer over packed sequences."""

    def __init__(self, kind: str, width: int, options: dict[str, Any], unpack: bool, in_order: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.rnn = getattr(nn, kind)(width, width, **options)
        self.out = nn.Linear(width * (2 if options.get("bidirectional") else 1), 3)
        self.unpack, self.in_order = unpack, in_order

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        first = self.rnn.batch_first
        inputs = self.embedding(tokens if first else tokens.T)
        packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=first, enforce_sorted=self.in_order)
        output, state = self.rnn(packed)
        if self.unpack:
            return self.out(pad_packed_sequence(output, batch_first=first)[0])
        hidden = state[0] if isinstance(state, tuple) else state
        directions = 2 if self.rnn.bidirectional else 1
        return self.out(torch.cat([*hidden[-directions:]], dim=-1))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("options", [{"batch_first": True}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize(("unpack", "in_order"), [(True, False), (False, True), (False, False)])
def test_packed_sequences_are_traced(kind: str, options: dict[str, Any], unpack: bool, in_order: bool) -> None:
    lengths = torch.tensor([6, 4, 3, 2] if in_order else [3, 6, 2, 4])
    batch = torch.randint(0, 11, (4, 6)), lengths
    base, motivated = (Tagger(kind, width, options, unpack, in_order) for width in (3, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights_map = exact(base, motivated, batch)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    rows = [gate * 5 + row for gate in range(gates) for row in range(3)]
    assert [*weights_map.entries["rnn.weight_ih_l0"].index[0]] == rows


class Reader(nn.Module):
    """A recurrent layer over numbers, which tells by itself what it takes."""

    def __init__(self, kind: str, width: int, batch_first: bool) -> None:
        super().__init__()
        self.rnn, self.out = getattr(nn, kind)(4, width, batch_first=batch_first), nn.Linear(width, 2)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.out(self.rnn(numbers)[0])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_models_that_begin_with_a_recurrent_layer_need_no_batch(kind: str, batch_first: bool) -> None:
    base, motivated = (Reader(kind, width, batch_first) for width in (3, 5))
    numbers = torch.randn(2, 6, 4)
    weights_map = seeking.match(base, motivated, batch=numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seeking.match(base, motivated) == weights_map
        seeking.embed(base, motivated)
    assert torch.allclose(base(numbers), motivated(numbers), atol=1e-6)
