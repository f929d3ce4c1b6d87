"""Small transformers of every kind of layer that a weights map must understand, in any width and depth."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import HEAD, Sizes, sizes

WORDS = torch.arange(8).view(2, 4)


class Fused(nn.Module):
    """Attention with one projection for queries, keys and values, laid out as q, k, v or head by head."""

    def __init__(self, sizes: Sizes, by_head: bool = False) -> None:
        super().__init__()
        self.heads, self.by_head = sizes.heads, by_head
        self.qkv = nn.Linear(sizes.width, 3 * sizes.heads * HEAD)
        self.proj = nn.Linear(sizes.heads * HEAD, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        if self.by_head:
            q, k, v = self.qkv(x).view(b, n, self.heads, 3 * HEAD).transpose(1, 2).chunk(3, dim=-1)
        else:
            q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1))


class Grouped(nn.Module):
    """Attention of several queries to one key, with rotary positions and norms of q and k, by hand."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.keys, self.group = sizes.heads, sizes.per_group
        self.q = nn.Linear(sizes.width, self.keys * self.group * HEAD, bias=False)
        self.k = nn.Linear(sizes.width, self.keys * HEAD, bias=False)
        self.v = nn.Linear(sizes.width, self.keys * HEAD)
        self.q_norm, self.k_norm = nn.RMSNorm(HEAD), nn.RMSNorm(HEAD)
        self.o = nn.Linear(self.keys * self.group * HEAD, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = rotate(self.q_norm(self.q(x).view(b, n, -1, HEAD)).transpose(1, 2))
        k = rotate(self.k_norm(self.k(x).view(b, n, -1, HEAD)).transpose(1, 2))
        v = self.v(x).view(b, n, -1, HEAD).transpose(1, 2)
        if self.group > 1:
            k, v = (t[:, :, None].expand(b, self.keys, self.group, n, HEAD).reshape(b, -1, n, HEAD) for t in (k, v))
        shares = (q @ k.transpose(-2, -1) / math.sqrt(HEAD)).softmax(-1)
        return self.o((shares @ v).transpose(1, 2).flatten(2))


def rotate(x: Tensor) -> Tensor:
    """Rotary position embedding of halves."""
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * torch.tensor([1.0, 0.1], device=x.device)
    cos, sin = (torch.cat([f(angle)] * 2, dim=-1) for f in (torch.cos, torch.sin))
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


class Biased(nn.Module):
    """Attention with a table of relative positions, looked up through a buffer."""

    def __init__(self, sizes: Sizes, length: int = 5) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.query = nn.Linear(sizes.width, sizes.heads * HEAD)
        self.key_value = nn.Linear(sizes.width, 2 * sizes.heads * HEAD)
        self.proj = nn.Linear(sizes.heads * HEAD, sizes.width)
        self.table = nn.Parameter(torch.randn(2 * length - 1, sizes.heads))
        places = torch.arange(length)
        self.register_buffer("index", places[:, None] - places[None] + length - 1)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.query(x).view(b, n, self.heads, HEAD).transpose(1, 2)
        k, v = self.key_value(x).view(b, n, 2, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index[:n, :n].reshape(-1)].view(n, n, -1).permute(2, 0, 1)
        shares = (q @ k.transpose(-2, -1) * HEAD**-0.5 + bias).softmax(-1)
        return self.proj((shares @ v).transpose(1, 2).reshape(b, n, -1))


class Torch(nn.Module):
    """torch.nn.MultiheadAttention, where the width is that of the heads."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.inner = nn.Linear(sizes.width, sizes.heads * HEAD)
        self.attn = nn.MultiheadAttention(sizes.heads * HEAD, sizes.heads, batch_first=True)
        self.outer = nn.Linear(sizes.heads * HEAD, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return self.outer(self.attn(y, y, y, need_weights=False)[0])


class Gated(nn.Module):
    """SwiGLU with gate and up in one projection."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gate_up = nn.Linear(sizes.width, 2 * sizes.hidden)
        self.down = nn.Linear(sizes.hidden, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class GatedApart(nn.Module):
    """GEGLU with two projections."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(sizes.width, sizes.hidden), nn.Linear(sizes.width, sizes.hidden)
        self.down = nn.Linear(sizes.hidden, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.gate(x)) * self.up(x))


class Mlp(nn.Sequential):
    """Two layers."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(nn.Linear(sizes.width, sizes.hidden), nn.GELU(), nn.Linear(sizes.hidden, sizes.width))


class Residual(nn.Module):
    """Norm, branch, layer scale, addition."""

    def __init__(self, branch: nn.Module, norm: nn.Module, width: int) -> None:
        super().__init__()
        self.norm, self.branch = norm, branch
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.branch(self.norm(x))


TOKEN_BRANCHES: dict[str, Callable[[Sizes], nn.Module]] = {
    "fused": Fused,
    "fused by head": lambda sizes: Fused(sizes, by_head=True),
    "grouped": Grouped,
    "biased": Biased,
    "torch": Torch,
    "gated": Gated,
    "gated apart": GatedApart,
    "mlp": Mlp,
}


class Tokens(nn.Module):
    """A transformer over words: embedding, class token, positions, blocks, a head that may be tied."""

    def __init__(self, sizes: Sizes, branches: Sequence[str], norm: type[nn.Module], tied: bool = True) -> None:
        super().__init__()
        self.words = nn.Embedding(sizes.words, sizes.width)
        self.first = nn.Parameter(torch.randn(1, 1, sizes.width))
        self.positions = nn.Parameter(torch.randn(1, 5, sizes.width))
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Residual(TOKEN_BRANCHES[branch](sizes), norm(sizes.width), sizes.width) for _ in range(sizes.depth)
            )
            for branch in branches
        )
        self.norm = norm(sizes.width)
        self.head = nn.Linear(sizes.width, sizes.words if tied else 3, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.first.expand(len(x), -1, -1), self.words(x)], dim=1) + self.positions
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.head(self.norm(x))


@st.composite
def token_models(draw: st.DrawFn) -> tuple[nn.Module, nn.Module, Tensor]:
    """Two transformers, one in the other, and a batch for them."""
    small, large = draw(sizes())
    rest: dict[str, Any] = {
        "branches": draw(st.lists(st.sampled_from(sorted(TOKEN_BRANCHES)), min_size=1, max_size=3)),
        "norm": draw(st.sampled_from([nn.LayerNorm, nn.RMSNorm])),
        "tied": draw(st.booleans()),
    }
    return Tokens(small, **rest), Tokens(large, **rest), WORDS
