"""Models as users write them: what they do besides must neither mislead nor be disturbed."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seeking
from seeking import Index, Override, SeekingError, WeightsMap, match, verify
from seeking.weights_map import tensors

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


class ByParent(nn.Module):
    """The model, not the block, adds the block's input."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(depth))
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


def exact(base: nn.Module, motivated: nn.Module, batch: Any, width: str) -> None:
    verdict = verify(base, motivated, match(base, motivated, batch=batch, width=width), batch)
    assert verdict, verdict.reason


widths = pytest.mark.parametrize("width", ["leading", "even"])


@widths
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers(kind: type[nn.RNNBase], both: bool, width: str) -> None:
    exact(Recurrent(kind, 4, both), Recurrent(kind, 6, both), SEQUENCES, width)


MIDDLES: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "glu": (lambda self, x: F.glu(x, -1), 2),
    "shuffle": (lambda self, x: F.channel_shuffle(x[..., None, None], 2).flatten(1), 1),
    "in place": (lambda self, x: x.unsqueeze_(1).transpose_(1, 2).mean(2), 1),
    "every second": (lambda self, x: x[..., 1::2] - x[..., ::2], 2),
    "unscaled products": (lambda self, x: (x[:, None] @ x[:, :, None])[:, 0] * x, 1),
    "noise in evaluation": (lambda self, x: F.dropout(x, 0.5, training=True).sum(-1, keepdim=True) + x, 1),
}


@widths
@pytest.mark.parametrize("name", sorted(MIDDLES.keys() - {"noise in evaluation"}))
def test_operations(name: str, width: str) -> None:
    middle, factor = MIDDLES[name]
    exact(Small(4, middle, factor=factor), Small(8, middle, factor=factor), VECTORS, width)


@pytest.mark.parametrize("turn", [lambda self, x: x.flip(-1), lambda self, x: x.roll(1, -1)], ids=["flip", "roll"])
def test_channels_in_another_order_do_not_grow(turn: Callable[[Any, Tensor], Tensor]) -> None:
    exact(Small(4, turn), Small(4, turn), VECTORS, "leading")
    with pytest.raises(seeking.NotContainedError, match="mixed across uneven boundaries"):
        match(Small(4, turn), Small(6, turn), batch=VECTORS)


@widths
def test_bags_of_embeddings(width: str) -> None:
    def bag(size: int) -> nn.Module:
        return nn.Sequential(nn.EmbeddingBag(9 + size, size), nn.Linear(size, 2))

    exact(bag(4), bag(6), torch.arange(8).view(2, 4), width)


@widths
def test_towers_whose_products_are_not_attention(width: str) -> None:
    class Towers(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, size, bias=False), nn.Linear(8, size, bias=False)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.normalize(self.a(x), dim=-1) @ F.normalize(self.b(y), dim=-1).T

    exact(Towers(4), Towers(6), (VECTORS, VECTORS.flip(0)), width)


@widths
def test_matrices_that_are_summed_before_use(width: str) -> None:
    class LowRank(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(size, 8))
            self.a, self.b = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(size, 2))
            self.out = nn.Linear(size, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.linear(x, self.w + self.b @ self.a))

    exact(LowRank(4), LowRank(6), VECTORS, width)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    models = (nn.Sequential(nn.Linear(8, w), nn.Tanh(), nn.Linear(w, 2)).to(dtype) for w in (4, 6))
    exact(*models, VECTORS.to(dtype), "leading")


def test_a_transformer_with_padding() -> None:
    class Padded(nn.Module):
        def __init__(self, heads: int) -> None:
            super().__init__()
            self.words = nn.Embedding(9, 4 * heads)
            layer = nn.TransformerEncoderLayer(4 * heads, heads, 8 * heads, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.out = nn.Linear(4 * heads, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.encoder(self.words(x), src_key_padding_mask=x == 0)).mean(1)

    exact(Padded(2), Padded(3), torch.tensor([[3, 4, 5, 0], [6, 7, 0, 0]]), "leading")


class Remembering(nn.Module):
    """Keeps a table once made, a running mean, and writes into its batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, width), nn.Linear(width, 2)
        self.table: Tensor | None = None
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("state", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        x = self.enter(x)
        if self.table is None:
            self.table = torch.linspace(0, 1, len(x), device=x.device)[:, None]
            self.register_buffer("late", torch.ones(1, device=x.device), persistent=False)
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.state.mul_(0.5).add_(x.detach().mean(0))
        return self.leave(x * self.table + self.state)


def test_what_a_forward_remembers_is_not_disturbed() -> None:
    base, motivated = Remembering(4), Remembering(6)
    before = [{n: (id(t), t.clone()) for n, t in tensors(model).items()} for model in (base, motivated)]
    batch = VECTORS.clone()
    weights_map = match(base, motivated, batch=batch)
    verdict = verify(base, motivated, weights_map, batch)
    assert verdict, verdict.reason
    assert torch.equal(batch, VECTORS)
    for model, was in zip((base, motivated), before, strict=True):
        assert model.table is None
        now = tensors(model)
        assert now.keys() == was.keys()
        assert all(id(now[name]) == i and torch.equal(now[name], t) for name, (i, t) in was.items())
        model(VECTORS.clone())


def test_a_constant_in_the_output_hides_nothing() -> None:
    class Masked(nn.Module):
        def __init__(self, width: int, value: float) -> None:
            super().__init__()
            self.enter, self.head, self.value = nn.Linear(8, width), nn.Parameter(torch.randn(3, width)), value

        def forward(self, x: Tensor) -> Tensor:
            y = self.enter(x) @ self.head.T
            return y.masked_fill(torch.arange(3) == 0, self.value)

    for value in (-1e9, float("-inf")):
        base, motivated = Masked(4, value), Masked(6, value)
        good = match(base, motivated, batch=VECTORS)
        verdict = verify(base, motivated, good, VECTORS)
        assert verdict, verdict.reason
        entry = good.entries["head"]
        turned = dataclasses.replace(entry, index=(entry.index[0], Index.of([3, 2, 1, 0])))
        assert not verify(base, motivated, WeightsMap({**good.entries, "head": turned}, good.motivated), VECTORS)


def test_noise_in_evaluation_is_the_same_for_both() -> None:
    middle, _ = MIDDLES["noise in evaluation"]
    base, motivated = Small(4, middle), Small(4, middle)
    assert verify(base, motivated, match(base, motivated, batch=VECTORS), VECTORS)


def test_outputs_in_a_dataclass() -> None:
    @dataclasses.dataclass
    class Out:
        logits: Tensor

    class Wrapped(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(8, width), nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Out:
            return Out(self.leave(self.enter(x)))

    exact(Wrapped(4), Wrapped(6), VECTORS, "even")


def test_blocks_whose_input_the_model_adds_start_as_nothing() -> None:
    base, motivated = ByParent(1), ByParent(3)
    seeking.embed(base, motivated, batch=VECTORS)
    assert torch.equal(base(VECTORS), motivated(VECTORS))
    assert motivated.blocks[2][0].weight.any()
    assert not motivated.blocks[2][2].weight.any()


def test_matrices_of_ones_own_start_neutral_whichever_way_they_stand() -> None:
    class Matrix(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(8, width), nn.Linear(width + 3, 2)
            self.w = nn.Parameter(torch.randn(width, width + 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.leave((self.enter(x) @ self.w).relu())

    base, motivated = Matrix(4), Matrix(6)
    seeking.embed(base, motivated, batch=VECTORS)
    assert torch.allclose(base(VECTORS), motivated(VECTORS), atol=1e-6)


def test_embed_finds_an_input_or_refuses_before_it_changes_anything() -> None:
    def images(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(width * 1024, 2))

    base, motivated = images(2), images(3)
    seeking.embed(base, motivated)
    batch = torch.randn(2, 3, 32, 32)
    assert torch.allclose(base(batch), motivated(batch), atol=1e-5)
    before = copy.deepcopy(motivated)
    other = images(2)
    with pytest.raises(SeekingError, match="the models refuse the batch"):
        seeking.embed(other, motivated, match(other, motivated, batch=batch), batch=torch.randn(2, 5))
    assert all(torch.equal(t, tensors(before)[name]) for name, t in tensors(motivated).items())


def test_bad_overrides_and_models_without_numbers_are_refused() -> None:
    base, motivated = (nn.Sequential(nn.Linear(8, w), nn.Linear(w, 2)) for w in (4, 6))
    for bad, message in (
        ({"0": Override(index=["0:4"])}, "takes a target, not an index"),
        ({"0.weight": Override(index="0:4")}, "is a list with an item for each dimension"),
        ({"0.weight": Override(index=[[1.5, 2, 3, 4], None])}, "by numbers from 0 up"),
    ):
        with pytest.raises(SeekingError, match=message):
            match(base, motivated, overrides=bad)
    weights_map = match(base, motivated)
    with pytest.raises(SeekingError, match="is on the meta device; verify computes"):
        verify(base.to("meta"), motivated, weights_map, VECTORS)


def test_parameters_without_entries() -> None:
    class Empty(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.none, self.out = nn.Parameter(torch.randn(width, 0)), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x)

    exact(Empty(3), Empty(4), VECTORS, "leading")
