"""Operations of models as users write them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import assert_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import seeking
from seeking import match
from seeking.matching import op_rules

VECTORS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
SEQUENCES = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    """A layer in, something in the middle, a layer out."""

    def __init__(self, width: int, middle: Callable[[Any, Tensor], Tensor], inputs: int = 8, factor: int = 1) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(inputs, factor * width), nn.Linear(width, 2)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.middle(self, self.enter(x)))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], width: int, both: bool) -> None:
        super().__init__()
        self.rnn = kind(3, width, batch_first=True, bidirectional=both)
        self.out = nn.Linear(width * (2 if both else 1), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0].mean(1))


widths = pytest.mark.parametrize("width", ["leading", "even"])


@widths
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_are_exact(kind: type[nn.RNNBase], both: bool, width: str) -> None:
    assert_exact(Recurrent(kind, 4, both), Recurrent(kind, 6, both), SEQUENCES, width=width)


def unfold(x: Tensor) -> Tensor:
    return F.unfold(x[:, :, None, None].expand(-1, -1, 4, 4), 2, stride=2)


def fold(x: Tensor) -> Tensor:
    return F.fold(x, 4, 2, stride=2).mean((2, 3))


MIDDLES: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "glu": (lambda self, x: F.glu(x, -1), 2),
    "shuffle": (lambda self, x: F.channel_shuffle(x[..., None, None], 2).flatten(1), 1),
    "in place": (lambda self, x: x.unsqueeze_(1).transpose_(1, 2).mean(2), 1),
    "every second": (lambda self, x: x[..., 1::2] - x[..., ::2], 2),
    "every channel in order": (lambda self, x: x.sort(0).values + x.topk(len(x), 0).values, 1),
    "rolled batch": (lambda self, x: torch.roll(x, [1], [0]), 1),
    "complex": (lambda self, x: torch.view_as_real(torch.polar(x, x)).sum(-1), 1),
    "windows": (lambda self, x: fold(unfold(x)), 1),
    "activations in place": (lambda self, x: F.mish(F.hardswish(x, inplace=True), inplace=True), 1),
    "unscaled products": (lambda self, x: (x[:, None] @ x[:, :, None])[:, 0] * x, 1),
}


@widths
@pytest.mark.parametrize("name", sorted(MIDDLES))
def test_operations_are_followed(name: str, width: str) -> None:
    middle, factor = MIDDLES[name]
    assert_exact(Small(4, middle, factor=factor), Small(8, middle, factor=factor), VECTORS, width=width)


def places(x: Tensor) -> Tensor:
    return torch.arange(0, x.shape[1], 2, device=x.device)


def rows(x: Tensor) -> Tensor:
    """A mask of positions; integers, which are known, say which."""
    return (torch.arange(x.shape[1]) % 2 == 0).expand(x.shape[:2])


def into(x: Tensor, write: Callable[[Tensor], object]) -> Tensor:
    write(x := x.clone())
    return x


def empty(x: Tensor) -> Tensor:
    return torch.zeros(x.shape)


WRITES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mask": lambda x, v: into(x, lambda y: y.__setitem__(rows(x), v)),
    "mask of a dimension": lambda x, v: into(x, lambda y: y.__setitem__((slice(None), rows(x)[0]), v)),
    "positions": lambda x, v: into(x, lambda y: y.__setitem__((slice(None), places(x)), v)),
    "positions of both": lambda x, v: into(x, lambda y: y.__setitem__((torch.tensor([0, 1]), torch.tensor([2, 3])), v)),
    "masked scatter": lambda x, v: x.masked_scatter(rows(x)[..., None].expand_as(x), v.expand(x.shape[1], -1)),
    "index add": lambda x, v: x + empty(x).index_add(1, places(x), v.expand(len(x), 3, -1)),
    "index copy": lambda x, v: empty(x).index_copy(1, places(x), v.expand(len(x), 3, -1)) + x,
    "scatter add": lambda x, v: x + empty(x).scatter_add(1, torch.zeros(x.shape, dtype=torch.long), v.expand_as(x)),
}


@widths
@pytest.mark.parametrize("name", sorted(WRITES))
def test_values_belong_to_the_channels_that_they_are_written_into(name: str, width: str) -> None:
    class Written(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(3, 2 * size), nn.Linear(size, 2)
            self.value = nn.Parameter(torch.randn(2 * size))

        def forward(self, x: Tensor) -> Tensor:
            return self.leave(WRITES[name](self.enter(x), self.value).unflatten(-1, (2, -1)).sum(-2))

    assert_exact(Written(4), Written(6), SEQUENCES, width=width)


@widths
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore::seeking.MatchWarning", "ignore:Sparse CSR tensor support")
def test_products_with_sparse_matrices_are_exact(layout: torch.layout, width: str) -> None:
    class Graph(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(8, size), nn.Linear(size, 2)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            return self.leave(edges @ torch.sparse.mm(edges, self.enter(x)).relu())

    edges = torch.tensor([[0.0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0]]).to_sparse(layout=layout)
    assert_exact(Graph(4), Graph(6), (VECTORS, edges), width=width)


def test_channels_that_are_written_by_number_are_the_first_ones() -> None:
    def silenced(model: Any, x: Tensor) -> Tensor:
        return into(x, lambda y: y.__setitem__((slice(None), torch.tensor([0, 2])), torch.zeros(2)))

    assert_exact(Small(4, silenced), Small(8, silenced), VECTORS, width="even")


@pytest.mark.parametrize("turn", [lambda self, x: x.flip(-1), lambda self, x: x.roll(1, -1)], ids=["flip", "roll"])
def test_channels_in_another_order_do_not_grow(turn: Callable[[Any, Tensor], Tensor]) -> None:
    assert_exact(Small(4, turn), Small(4, turn), VECTORS, width="leading")
    with pytest.raises(seeking.NotContainedError, match="mixed across uneven boundaries"):
        match(Small(4, turn), Small(6, turn), batch=VECTORS)


@widths
def test_bags_of_embeddings_are_exact(width: str) -> None:
    def bag(size: int) -> nn.Module:
        return nn.Sequential(nn.EmbeddingBag(9 + size, size), nn.Linear(size, 2))

    assert_exact(bag(4), bag(6), torch.arange(8).view(2, 4), width=width)


@pytest.mark.slow
@widths
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.filterwarnings("ignore::seeking.MatchWarning", "ignore:flex_attention called without")
def test_heads_of_flexible_attention_are_followed(groups: int, width: str) -> None:
    """Fused projections, and heads of queries that share keys and values."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def middle(model: Any, x: Tensor) -> Tensor:
        q, k, v = x.unflatten(-1, (-1, groups + 2, 4)).movedim(1, 3).split([groups, 1, 1], 2)
        heads = [each.flatten(1, 2) for each in (q, k, v)]
        mask = create_block_mask(lambda batch, head, i, j: i >= j, None, None, x.shape[1], x.shape[1], device=x.device)
        y = flex_attention(*heads, score_mod=lambda score, *at: score.tanh(), block_mask=mask, enable_gqa=groups > 1)
        return y.transpose(1, 2).flatten(2)

    models = [Small(4 * groups * size, middle, inputs=3) for size in (2, 4)]
    for model, size in zip(models, (2, 4), strict=True):
        model.enter = nn.Linear(3, 4 * size * (groups + 2))
    assert_exact(*models, SEQUENCES, width=width)


@widths
def test_towers_whose_products_are_not_attention_grow(width: str) -> None:
    class Towers(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, size, bias=False), nn.Linear(8, size, bias=False)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.normalize(self.a(x), dim=-1) @ F.normalize(self.b(y), dim=-1).T

    assert_exact(Towers(4), Towers(6), (VECTORS, VECTORS.flip(0)), width=width)


@widths
def test_matrices_that_are_summed_before_use_are_exact(width: str) -> None:
    class LowRank(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(size, 8))
            self.a, self.b = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(size, 2))
            self.out = nn.Linear(size, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.linear(x, self.w + self.b @ self.a))

    assert_exact(LowRank(4), LowRank(6), VECTORS, width=width)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_models_of_other_dtypes_are_exact(dtype: torch.dtype) -> None:
    models = (nn.Sequential(nn.Linear(8, w), nn.Tanh(), nn.Linear(w, 2)).to(dtype) for w in (4, 6))
    assert_exact(*models, VECTORS.to(dtype), width="leading")


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_dropout_within_attention_is_no_difference(fused: bool, by_name: bool) -> None:
    """In training mode, of a module of the user's own, with more heads."""

    class Attention(nn.Module):
        def __init__(self, heads: int) -> None:
            super().__init__()
            self.heads, size = heads, 4 * heads
            self.enter, self.leave = nn.Linear(3, 3 * size), nn.Linear(size, 2)
            self.weight, self.mix = nn.Parameter(torch.randn(3 * size, size)), nn.Linear(size, size)

        def forward(self, x: Tensor) -> Tensor:
            rate = 0.5 if self.training else 0.0
            q, k, v = self.enter(x).chunk(3, -1)
            if fused:
                q, k, v = (each.unflatten(-1, (self.heads, 4)).transpose(1, 2) for each in (q, k, v))
                options = ([], {"dropout_p": rate}) if by_name else ([None, rate], {})
                y = F.scaled_dot_product_attention(q, k, v, *options[0], **options[1]).transpose(1, 2).flatten(2)
            else:
                sizes = q.shape[-1], self.heads, self.weight, None, None, None, False
                mix = self.mix.weight, self.mix.bias
                if by_name:
                    last = {"dropout_p": rate, "out_proj_weight": mix[0], "out_proj_bias": mix[1]}
                    y = F.multi_head_attention_forward(q, k, v, *sizes, **last)[0]
                else:
                    y = F.multi_head_attention_forward(q, k, v, *sizes, rate, *mix)[0]
            return self.leave(y)

    assert_exact(Attention(2), Attention(3), SEQUENCES, width="leading")


def test_a_transformer_with_padding_is_exact() -> None:
    class Padded(nn.Module):
        def __init__(self, heads: int) -> None:
            super().__init__()
            self.words = nn.Embedding(9, 4 * heads)
            layer = nn.TransformerEncoderLayer(4 * heads, heads, 8 * heads, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.out = nn.Linear(4 * heads, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.encoder(self.words(x), src_key_padding_mask=x == 0)).mean(1)

    assert_exact(Padded(2), Padded(3), torch.tensor([[3, 4, 5, 0], [6, 7, 0, 0]]), width="leading")


def test_every_file_beside_its_siblings_is_loaded() -> None:
    files = [path.stem for path in Path(op_rules.__file__).parent.glob("*.py") if path.stem != "__init__"]
    assert len(files) > 5
    assert all(f"{op_rules.__name__}.{name}" in sys.modules for name in files)


EMPTYING: dict[str, Callable[[Tensor], Tensor]] = {
    "no rows": lambda x: x[:0],
    "no channels": lambda x: x[:, :0],
    "none of a new dimension": lambda x: x.new_zeros(len(x), 0, x.shape[1]),
    "masked": lambda x: x.new_zeros(0, x.shape[1]),
}
SHOWING: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x.flatten(),
    "flatten the last": lambda x: x.flatten(-2) if x.ndim > 1 else x,
    "columns": lambda x: x.reshape(0, 2, 3),
    "rows": lambda x: x.reshape(4, 0),
    "unflatten": lambda x: x.unflatten(-1, (-1, 1)) if x.shape[-1] else x.unflatten(-1, (0, 5)),
    "transpose": lambda x: x.transpose(0, -1),
    "chunk": lambda x: x.chunk(2)[0],
    "split": lambda x: x.split(1, -1)[0],
    "repeat": lambda x: x.repeat_interleave(2, 0),
    "join": lambda x: torch.cat([x, x], -1),
    "stack": lambda x: torch.stack([x, x]),
    "relu": lambda x: x.relu(),
    "unsqueeze": lambda x: x[None],
}


@settings(max_examples=40)
@given(
    first=st.sampled_from(sorted(EMPTYING)),
    rest=st.lists(st.sampled_from(sorted(SHOWING)), min_size=1, max_size=4),
    joined=st.booleans(),
)
def test_tensors_without_elements_are_followed(first: str, rest: list[str], joined: bool) -> None:
    def middle(model: nn.Module, x: Tensor) -> Tensor:
        empty = EMPTYING[first](x)
        for name in rest:
            empty = SHOWING[name](empty)
        return (torch.cat([x.flatten(), empty.flatten()]).view_as(x) if joined else x) + empty.sum()

    models = [Small(width, middle) for width in (4, 6)]
    assert_exact(*models, batch=VECTORS)


class States(nn.Module):
    """A recurrence with a number of states for each channel, which begins at zero."""

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 2)
        self.into, self.out = nn.Linear(width, states), nn.Linear(width, states)
        self.decay = nn.Parameter(torch.randn(width, states))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        state = x.new_zeros(len(x), *self.decay.shape)
        for step in x.unbind(1):
            state = state * self.decay.sigmoid() + step[..., None] * self.into(step)[:, None]
        y: Tensor = self.leave((state * self.out(x[:, -1])[:, None]).sum(-1))
        return y


@widths
@pytest.mark.parametrize("base", [(4, 6), (6, 4), (3, 4)], ids=str)
def test_sizes_that_are_equal_by_chance_are_those_of_other_channels(base: tuple[int, int], width: str) -> None:
    assert_exact(States(*base), States(6, 6), SEQUENCES, width=width)


def test_noise_in_a_forward_is_the_same_in_both() -> None:
    def middle(model: nn.Module, x: Tensor) -> Tensor:
        kept = torch.bernoulli(torch.full_like(x, 0.8)) / 0.8 + torch.bernoulli(x, p=0.5)
        return x * kept * nn.init.uniform_(tensor=x.new_empty(1)) + nn.init.normal_(x.new_empty(1))

    assert_exact(*(Small(width, middle) for width in (4, 6)), batch=VECTORS)
