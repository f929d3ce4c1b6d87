"""Outputs of all layers, joined, in models of other depths."""

import pytest
import torch
from checks import assert_exact
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seeking import match

BATCH = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


class Joined(nn.Module):
    """A head over all hidden states: of a residual stream, of a plain chain, or of layers that see all before them."""

    def __init__(self, kind: str, width: int, growth: int, depth: int, with_input: bool, norm: bool) -> None:
        super().__init__()
        self.kind, self.with_input = kind, with_input
        self.enter = nn.Linear(6, width)
        if kind == "dense":
            sizes = [(width + number * growth, growth) for number in range(depth)]
        else:
            sizes = [(width, width)] * depth
        self.layers = nn.ModuleList(nn.Linear(*size) for size in sizes)
        total = width * with_input + sum(size for _, size in sizes)
        self.norm = nn.LayerNorm(total) if norm else nn.Identity()
        self.head = nn.Linear(total, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        outputs = [x]
        for layer in self.layers:
            before = torch.cat(outputs, -1) if self.kind == "dense" else outputs[-1]
            after = layer(before.relu())
            outputs.append(after + before if self.kind == "residual" else after)
        return self.head(self.norm(torch.cat(outputs[not self.with_input :], -1)))


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.sampled_from(["residual", "chain", "dense"]),
    *[st.integers(1, 3)] * 3,
    *[st.integers(0, 2)] * 3,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["leading", "spread"]),
    st.sampled_from(["leading", "even"]),
)
def test_joined_outputs_of_extra_layers_meet_extra_channels(
    kind: str,
    size: int,
    growth: int,
    layers: int,
    wider: int,
    faster: int,
    deeper: int,
    with_input: bool,
    norm: bool,
    depth: str,
    width: str,
) -> None:
    assume(kind != "chain" or depth == "leading")  # A layer without a shortcut is never the identity.
    base = Joined(kind, size, growth, layers, with_input, norm)
    motivated = Joined(kind, size + wider, growth + faster, layers + deeper, with_input, norm)
    assert_exact(base, motivated, BATCH, depth=depth, width=width)


def test_the_parts_of_the_bases_own_layers_are_kept() -> None:
    base, motivated = (Joined("residual", 4, 0, depth, True, False) for depth in (2, 4))
    assert str(match(base, motivated, batch=BATCH).entries["head.weight"].index[1]) == "0:12"
    assert str(match(base, motivated, batch=BATCH, depth="spread").entries["head.weight"].index[1]) == "0:8, 12:16"
