"""Heads may be of another size wherever attention does not scale by it."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from checks import assert_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seeking import NotContainedError, match

BATCH = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))

Attention = Callable[["Block", Tensor, Tensor, Tensor], Tensor]


class Block(nn.Module):
    def __init__(self, width: int, heads: int, head: int, normalized: bool, attention: Attention) -> None:
        super().__init__()
        self.heads, self.head, self.normalized, self.attention = heads, head, normalized, attention
        self.enter, self.leave = nn.Linear(6, width), nn.Linear(width, 3)
        self.qkv, self.out = nn.Linear(width, 3 * heads * head), nn.Linear(heads * head, width)
        self.temperature, self.by_head = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, self.head).permute(2, 0, 3, 1, 4).unbind(0)
        if self.normalized:
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        y = self.attention(self, q, k, v).transpose(1, 2).flatten(2)
        return self.leave(x + self.out(y))


def products(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1)


SCALED_ALIKE: dict[str, Attention] = {
    "not at all": lambda block, q, k, v: products(q, k).softmax(-1) @ v,
    "by one": lambda block, q, k, v: (1 * products(q, k) / 1.0).softmax(-1) @ v,
    "fused, by one": lambda block, q, k, v: F.scaled_dot_product_attention(q, k, v, scale=1.0),
    "by ten": lambda block, q, k, v: (10 * products(q, k)).softmax(-1) @ v,
    "fused, by ten": lambda block, q, k, v: F.scaled_dot_product_attention(q, k, v, scale=10.0),
    "by a parameter": lambda block, q, k, v: (products(q, k) * block.temperature.exp()).softmax(-1) @ v,
    "by a parameter a head": lambda block, q, k, v: (products(q, k) * block.by_head).softmax(-1) @ v,
}

BY_SIZE: dict[str, Attention] = {
    "fused": lambda block, q, k, v: F.scaled_dot_product_attention(q, k, v),
    "by hand": lambda block, q, k, v: (products(q, k) / math.sqrt(block.head)).softmax(-1) @ v,
    "by a tensor": lambda block, q, k, v: (products(q, k) / torch.tensor(block.head).sqrt()).softmax(-1) @ v,
}


@pytest.mark.slow
@settings(max_examples=12)
@given(
    st.sampled_from(sorted(SCALED_ALIKE)),
    st.booleans(),
    st.integers(1, 3),
    st.integers(2, 4),
    st.integers(0, 2),
    st.integers(1, 4),
)
def test_heads_grow_where_their_products_are_scaled_alike(
    name: str, normalized: bool, heads: int, head: int, more_heads: int, larger: int
) -> None:
    base = Block(8, heads, head, normalized, SCALED_ALIKE[name])
    assert_exact(base, Block(12, heads + more_heads, head + larger, normalized, SCALED_ALIKE[name]), BATCH)


@pytest.mark.parametrize("name", BY_SIZE)
def test_heads_do_not_grow_where_their_size_scales(name: str) -> None:
    with pytest.raises(NotContainedError, match="size of a head is 4 in the base and 8"):
        match(Block(8, 2, 4, True, BY_SIZE[name]), Block(12, 3, 8, True, BY_SIZE[name]), batch=BATCH)
    assert_exact(Block(8, 2, 4, True, BY_SIZE[name]), Block(12, 3, 4, True, BY_SIZE[name]), BATCH)
