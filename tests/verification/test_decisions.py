"""Decisions by numbers that differ prove nothing on one batch, and what tells why two models differ."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import seeking
from seeking.matching.deciding import NUMBERS_ALONE, decides
from seeking.matching.operation import flat_tensors
from seeking.verification.constants import changed_by_training

BATCH = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Quantized(nn.Module):
    """The nearest of some codes; a codebook that training moves has more columns where the model is wider."""

    def __init__(self, width: int, codes: int, learned: bool) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, width), nn.Linear(width, 2)
        book = torch.randn(codes, width)
        if learned:
            self.book = nn.Parameter(book)
        else:
            self.register_buffer("book", book)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        nearest = torch.cdist(x, self.book).argmin(-1)
        if self.training and not isinstance(self.book, nn.Parameter):
            self.book.mul_(0.9).add_(0.1 * F.one_hot(nearest, len(self.book)).to(x).T @ x.detach())
        y: Tensor = self.leave(self.book[nearest])
        return y


class Decided(nn.Module):
    def __init__(self, width: int, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.enter, self.leave, self.how = nn.Linear(6, width), nn.Linear(width, 2), how

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y: Tensor = self.leave(x * self.how(x))
        return y


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "threshold of a mean": lambda x: (x.mean(-1, keepdim=True) > 5).to(x.dtype),
    "sign of a variance": lambda x: (x.var(-1, keepdim=True) - 50).sign(),
    "rounded share": lambda x: (x.exp().sum(-1, keepdim=True) / 1000).round(),
}


@pytest.mark.slow
@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000), width=st.integers(1, 3), more=st.integers(1, 3), what=st.sampled_from(["state", *GATES])
)
def test_a_decision_by_other_numbers_is_never_exact(seed: int, width: int, more: int, what: str) -> None:
    torch.manual_seed(seed)
    sizes = width, width + more
    models = [Quantized(size, 5, False) if what == "state" else Decided(size + 1, GATES[what]) for size in sizes]
    verdict = seeking.verify(*models, seeking.match(*models, batch=BATCH), BATCH)
    assert not verdict.exact


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), width=st.integers(1, 3), more=st.integers(0, 3))
def test_a_decision_by_the_same_numbers_is_exact_and_more_codes_compete(seed: int, width: int, more: int) -> None:
    torch.manual_seed(seed)
    base, motivated = Quantized(width, 5, True), Quantized(width + more, 5, True)
    verdict = seeking.verify(base, motivated, seeking.match(base, motivated, batch=BATCH), BATCH)
    assert verdict, verdict.reason
    with pytest.raises(seeking.NotContainedError, match=r"5 in the base, 6 .* compete in argmin"):
        seeking.match(base, Quantized(width + more, 6, True), batch=BATCH)


class Scaled(nn.Module):
    def __init__(self, width: int, by: float, in_training: float) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, width), nn.Linear(width, 2)
        self.by = by, in_training

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.leave(self.enter(x).tanh() * self.by[self.training])
        return y


def test_another_number_is_named_in_training_mode_as_well() -> None:
    for numbers in ((2.0, 1.0), (1.0, 2.0)):
        base, motivated = Scaled(3, 1.0, 1.0), Scaled(5, *numbers)
        verdict = seeking.verify(base, motivated, seeking.match(base, motivated, batch=BATCH), BATCH)
        assert not verdict.exact
        assert ("in training mode" in verdict.reason) == (numbers[0] == 1)
    sized = Decided(4, lambda x: x / 2), Decided(6, lambda x: x / 3)
    verdict = seeking.verify(*sized, seeking.match(*sized, batch=BATCH), BATCH)
    assert "div by 2 in the base is div by 3 in the motivated model" in verdict.reason


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        (lambda x: x.logsumexp(-1, keepdim=True), "logsumexp over channels of which the base has only a part"),
        (lambda x: F.adaptive_avg_pool1d(x[:, None], 2)[:, 0, :1], "adaptive_avg_pool2d over channels of which"),
        (lambda x: F.mse_loss(x, x.flip(0)), "mse_loss over channels of which"),
        (lambda x: torch.linalg.det(x.T @ x), "linalg_det over channels of which"),
        (lambda x: (x / x.abs()).sum(-1, keepdim=True), "computes NaN"),
    ],
)
@pytest.mark.filterwarnings("ignore::seeking.MatchWarning")
def test_reductions_and_nan_are_named(how: Any, cause: str) -> None:
    models = Decided(4, how), Decided(6, how)
    verdict = seeking.verify(*models, seeking.match(*models, batch=BATCH), BATCH)
    assert not verdict.exact and cause in verdict.reason


def test_an_average_of_this_batch_alone_is_state() -> None:
    class Observed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 2)
            self.register_buffer("seen", torch.zeros(()))
            self.register_buffer("weights", torch.zeros(()))
            self.register_buffer("scale", torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                for average, value in ((self.seen, x.abs().max()), (self.weights, self.layer.weight.abs().max())):
                    average.copy_(torch.where(average == 0, value, average + 0.5 * (value - average)))
            y: Tensor = self.layer(x * self.scale)
            return y

    model = Observed()
    for forwards in range(2):
        assert changed_by_training(model, BATCH, None) == {"seen", "weights"}, forwards
        model(BATCH)


def level(x: Tensor) -> Tensor:
    """A statistic to which each extra channel contributes."""
    return x.exp().mean(-1, keepdim=True)


HIDING: dict[str, Callable[[Tensor], Any]] = {
    "heaviside": lambda x: torch.heaviside(level(x) - 1000, torch.zeros(1).to(x)),
    "signbit": lambda x: 1 + torch.signbit(level(x) + 1).to(x),
    "copysign": lambda x: torch.copysign(torch.ones(1).to(x), level(x) - 1000),
    "cast to booleans": lambda x: level(x).bool(),
    "cast to integers": lambda x: (level(x) / 1000).long(),
    "integers in place": lambda x: torch.zeros_like(level(x), dtype=torch.long).copy_(level(x) / 1000),
    "floor division": lambda x: level(x) // 1000,
    "division that rounds": lambda x: torch.div(level(x), 1000, rounding_mode="trunc"),
    "relu": lambda x: (level(x) - 1000).relu(),
    "relu in place": lambda x: (level(x) - 1000).relu_(),
    "relu of channels": lambda x: (x - 100 * x.shape[-1]).relu(),
    "sigmoid of channels in place": lambda x: (x - 1000 * x.shape[-1]).sigmoid_(),
    "relu before a cast": lambda x: 2 * (level(x) - 1000).relu().bool(),
    "softplus that is zero": lambda x: F.softplus(level(x) - 1000, beta=1000),
    "hardshrink": lambda x: F.hardshrink(level(x), 1000),
    "greater of two": lambda x: torch.maximum(level(x), torch.full((1,), 1000.0).to(x)),
    "bound": lambda x: level(x).clamp(min=1000),
    "histogram": lambda x: torch.histc(level(x), 2, 1000, 2000)[0],
    "number": lambda x: 2 if level(x).mean().item() > 1000 else 1,
    "list": lambda x: 2 if max(level(x).flatten().tolist()) > 1000 else 1,
    "array": lambda x: torch.from_numpy(level(x).numpy() > 1000).to(x),
    "second operand": lambda x: torch.where(x > 1000 * level(x), x, 1),
}


@pytest.mark.filterwarnings("ignore::seeking.MatchWarning")
@pytest.mark.parametrize("how", HIDING.values(), ids=HIDING)
def test_an_operation_that_hides_a_difference_on_this_batch_proves_nothing(how: Callable[[Tensor], Any]) -> None:
    models = Decided(4, how), Decided(7, how)
    verdict = seeking.verify(*models, seeking.match(*models, batch=BATCH), BATCH)
    assert not verdict.exact


ACTIVATIONS = {
    "relu",
    "relu6",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "threshold",
    "softshrink",
    "celu",
    "elu",
    "selu",
}
ACTIVATIONS |= {"leaky_relu", "rrelu", "prelu", "logit"}
"""They bound each channel by itself, and of many numbers show some."""


def test_each_elementwise_operation_that_is_constant_somewhere_decides() -> None:
    grid = torch.linspace(-3.9, 3.9, 41, dtype=torch.float64)
    other = torch.linspace(1.3, 1.4, 41, dtype=torch.float64)
    ran = set()
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads() if hasattr(packet, "overloads") else ():
            func = getattr(packet, overload)
            required = [a for a in func._schema.arguments if not a.has_default_value()]
            if torch.Tag.pointwise not in func.tags or any(argument.alias_info for argument in required):
                continue
            for varied in (place for place, argument in enumerate(required) if str(argument.type) == "Tensor"):
                values = [other if str(argument.type) == "Tensor" else 1.3 for argument in required]
                values[varied] = grid
                try:
                    outputs = flat_tensors(func(*values))
                except Exception:
                    continue
                ran.add(name)
                for output in outputs:
                    same = (output[1:] == output[:-1]) & output[1:].isfinite() if output.shape == grid.shape else None
                    if same is not None and (same[1:] & same[:-1]).any() and not name.endswith("_backward"):
                        degree = varied == 1 and "polynomial" in name
                        assert degree or name in NUMBERS_ALONE | ACTIVATIONS or decides(name, [grid], outputs, {}), name
    assert len(ran) > 100


@settings(max_examples=5)
@given(seed=st.integers(0, 1000), width=st.integers(1, 3), deeper=st.booleans())
def test_activations_are_no_decisions_of_other_channels(seed: int, width: int, deeper: bool) -> None:
    """The base's second layer is as wide as the motivated model's first."""
    torch.manual_seed(seed)

    def make(first: int, second: int) -> nn.Module:
        layers: list[nn.Module] = []
        for size, before in ((first, 6), (second, first)):
            layers += [nn.Linear(before, size), nn.LayerNorm(size), nn.ReLU(inplace=True), nn.Hardtanh(-0.1, 0.1)]
        return nn.Sequential(*layers, nn.Linear(second, 2))

    models = make(width + 1, 2 * width + 2), make(2 * width + 2, 4 * width)
    batch = BATCH[:, None].expand(-1, 3, -1) if deeper else BATCH
    verdict = seeking.verify(*models, seeking.match(*models, batch=batch), batch)
    assert verdict, verdict.reason


IDS = torch.arange(24).view(2, 12) % 7 + 1


class Counted(nn.Module):
    def __init__(self, width: int, how: Callable[[Tensor, int], Tensor], number: int) -> None:
        super().__init__()
        self.embedding, self.leave = nn.Embedding(64, width), nn.Linear(width, 2)
        self.how, self.number = how, number

    def forward(self, ids: Tensor) -> Tensor:
        leave: Tensor = self.leave(self.embedding(ids) * self.how(ids, self.number)[..., None])
        return leave


def apart(ids: Tensor) -> Tensor:
    """Distances of positions, of which the greatest is 11."""
    positions = torch.arange(ids.shape[1])
    return (positions[:, None] - positions).abs()


BY_INTEGERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "padding": lambda ids, number: ids != number,
    "special tokens": lambda ids, number: ids >= number,
    "window": lambda ids, number: (apart(ids) < number).float().mean(-1).expand(ids.shape),
    "buckets": lambda ids, number: 1.0 + (apart(ids) // number).sum(-1).expand(ids.shape),
    "hash": lambda ids, number: 1.0 + ids % number,
    "table": lambda ids, number: 1.0 + ids.clamp(max=number),
}


@pytest.mark.parametrize("how", BY_INTEGERS.values(), ids=BY_INTEGERS)
def test_integers_that_the_batch_does_not_reach_are_compared(how: Callable[[Tensor, int], Tensor]) -> None:
    base, same, other = Counted(4, how, 20), Counted(6, how, 20), Counted(6, how, 30)
    assert seeking.verify(base, same, seeking.match(base, same, batch=IDS), IDS)
    verdict = seeking.verify(base, other, seeking.match(base, other, batch=IDS), IDS)
    assert not verdict
    assert "20 in the base is" in verdict.reason


@pytest.mark.parametrize(("limit", "exact"), [(lambda width: 6 * width, True), (lambda width: 24, False)])
def test_a_count_times_a_size_is_compared_by_their_quotient(limit: Callable[[int], int], exact: bool) -> None:
    """As where a row of features for each place is asked for; on this batch, all compute the same."""

    def checked(width: int) -> nn.Module:
        def marks(ids: Tensor, number: int) -> Tensor:
            fits = (ids < number).sum() * width == limit(width)
            return ids + 1.0 + fits * 0.0

        return Counted(width, marks, 100)

    models = checked(4), checked(6)
    verdict = seeking.verify(*models, seeking.match(*models, batch=IDS), IDS)
    assert bool(verdict) == exact, verdict.reason


def test_a_scale_that_cancels_may_be_another() -> None:
    def share(scores: Tensor) -> Tensor:
        return scores / scores.abs().sum(0)

    def model(width: int) -> nn.Module:
        return Decided(width, lambda x: share(x.sum(-1, keepdim=True) * width**-0.5))

    models = model(4), model(6)
    verdict = seeking.verify(*models, seeking.match(*models, batch=BATCH), BATCH)
    assert verdict, verdict.reason


@pytest.mark.filterwarnings("ignore::seeking.MatchWarning")
@pytest.mark.parametrize("number", [0.0, 1.0])
def test_a_batch_of_equal_numbers_is_not_all_that_is_compared(number: float) -> None:
    def pooled(pool: Callable[..., Tensor]) -> nn.Module:
        return Decided(6, lambda x: pool(x[:, None], 3, 1, 1)[:, 0])

    models = pooled(F.avg_pool1d), pooled(F.max_pool1d)
    for module in (m for model in models for m in model.modules() if isinstance(m, nn.Linear)):
        module.bias = None
    batch = torch.full((4, 6), number)
    verdict = seeking.verify(*models, seeking.match(*models, batch=batch), batch)
    assert not verdict
    same = pooled(F.avg_pool1d), pooled(F.avg_pool1d)
    assert seeking.verify(*same, seeking.match(*same, batch=batch), batch)


def test_sparse_tensors_in_a_batch_of_equal_numbers_stay() -> None:
    class Graph(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 2)

        def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
            out: Tensor = self.leave(torch.sparse.mm(adjacency.to(x.dtype), self.enter(x)).relu())
            return out

    models, batch = (Graph(4), Graph(6)), (torch.ones(4, 3), torch.eye(4).to_sparse())
    verdict = seeking.verify(*models, seeking.match(*models, batch=batch), batch)
    assert verdict, verdict.reason


def test_tokens_that_are_all_alike_are_not_all_that_is_compared() -> None:
    def model(width: int, causal: bool) -> nn.Module:
        return Counted(width, lambda ids, causal: mixing(ids, bool(causal)), int(causal))

    def mixing(ids: Tensor, causal: bool) -> Tensor:
        seen = torch.ones(ids.shape[1], ids.shape[1])
        seen = seen.tril() if causal else seen
        return ids.double() @ (seen / seen.sum(-1, keepdim=True)).T.double()

    ids = torch.full((2, 5), 3)
    models = model(4, False), model(6, True)
    assert not seeking.verify(*models, seeking.match(*models, batch=ids), ids)
    same = model(4, True), model(6, True)
    assert seeking.verify(*same, seeking.match(*same, batch=ids), ids)
