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
@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 1000), width=st.integers(1, 3), more=st.integers(1, 3), what=st.sampled_from(["state", *GATES])
)
def test_a_decision_by_other_numbers_is_never_exact(seed: int, width: int, more: int, what: str) -> None:
    torch.manual_seed(seed)
    sizes = width, width + more
    models = [Quantized(size, 5, False) if what == "state" else Decided(size + 1, GATES[what]) for size in sizes]
    verdict = seeking.verify(*models, seeking.match(*models, batch=BATCH), BATCH)
    assert not verdict.exact


@settings(deadline=None, max_examples=10)
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
