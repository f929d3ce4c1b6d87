"""Forward passes that depend on numbers: votes of channels, branches, and tensors of sizes that the data decide."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import seeking

BATCH = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """Something between two layers, which is given the norm and the last layer, too."""

    def __init__(self, width: int, how: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.enter, self.norm, self.leave = nn.Linear(6, width), nn.LayerNorm(width), nn.Linear(width, 2)
        self.how = how

    def forward(self, x: Tensor) -> Any:
        x = self.how(self, self.enter(x))
        return self.leave(x) if isinstance(x, Tensor) else x


def verdict_of(how: Callable[[Any, Tensor], Any], width: int = 4, more: int = 3) -> seeking.Verification:
    torch.manual_seed(0)
    base, motivated = Between(width, how), Between(width + more, how)
    weights_map = seeking.match(base, motivated, batch=BATCH)
    return seeking.verify(base, motivated, weights_map, BATCH)


VOTES: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "all are positive": (lambda x: (x > 0).all(-1, keepdim=True), False),
    "all are large": (lambda x: (x > 1000).all(-1, keepdim=True), False),
    "all are above a bound": (lambda x: (x > -100).all(-1, keepdim=True), True),
    "all are finite": (lambda x: x.isfinite().all(-1, keepdim=True), True),
    "one is large": (lambda x: (x > 1000).any(-1, keepdim=True), True),
    "one is no number": (lambda x: x.sqrt().isnan().any(-1, keepdim=True), True),
    "one is below a bound": (lambda x: (x < 1000).any(-1, keepdim=True), False),
}


@pytest.mark.parametrize("name", VOTES)
@settings(max_examples=3)
@given(width=st.integers(1, 4), more=st.integers(1, 3))
def test_extra_channels_must_not_decide_a_vote(name: str, width: int, more: int) -> None:
    vote, contained = VOTES[name]
    verdict = verdict_of(lambda _, x: torch.where(vote(x), x, 2 * x), width, more)
    assert verdict.exact == contained, verdict.reason
    assert contained or ("over more channels" in verdict.reason and not verdict.contained)


BRANCHES: dict[str, tuple[Callable[[Any, Tensor], Tensor], bool]] = {
    "norms in one branch": (lambda model, x: model.norm(x) if x.sum() > 0 else x.relu(), True),
    "as many rows as the data decide": (
        lambda model, x: x.index_put((model.leave(x)[:, 0] > 0,), model.norm(x[model.leave(x)[:, 0] > 0])),
        True,
    ),
    "until it is small": (lambda model, x: model.norm(x if x.abs().sum() < 10 else x / 10), True),
    "a mean, beyond the batch": (lambda _, x: x + x.mean(-1, keepdim=True) if x.abs().max() > 20 else x, False),
    "a mean, below the batch": (lambda _, x: x + x.mean(-1, keepdim=True) if x.abs().max() < 0.2 else x, False),
}


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.filterwarnings("ignore::seeking.MatchWarning")
def test_branches_are_judged_beyond_the_batch(name: str) -> None:
    branch, contained = BRANCHES[name]
    verdict = verdict_of(branch)
    assert verdict.exact == contained, verdict.reason


def test_numbers_in_the_outputs_are_compared() -> None:
    def put_out(model: Any, x: Tensor) -> Any:
        return SimpleNamespace(logits=model.leave(x), scale=1 / x.shape[1], size=x.shape[1])

    assert "a number in the outputs is 0.25 in the base, 0.2 in" in verdict_of(put_out, more=1).reason
    assert verdict_of(put_out, more=0)
