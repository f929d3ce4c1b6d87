"""A statistic over channels is a norm's only if channels are divided by it or centered with it, and nothing else."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeking import NotContainedError, match, verify

Function = Callable[[Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, width: int, function: Function) -> None:
        super().__init__()
        self.enter, self.leave, self.function = nn.Linear(6, width), nn.Linear(width, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.function(self.enter(x)))


def mean(y: Tensor) -> Tensor:
    return y.mean(-1, keepdim=True)


def root(y: Tensor) -> Tensor:
    return (mean(y.square()) + 1e-6).sqrt()


def centered_around(y: Tensor) -> Tensor:
    center = mean(y)
    return (y - center).relu() + center


def scaled_back(y: Tensor) -> Tensor:
    scale = root(y)
    return (y / scale).tanh() * scale


def positional(y: Tensor) -> Tensor:
    center = mean(y)
    scale = root(y - center)
    return ((y - center) / scale).tanh() * scale + center


NORMS: dict[str, Function] = {
    "layer norm": lambda y: (y - mean(y)) / root(y - mean(y)),
    "root mean square": lambda y: y * torch.rsqrt(mean(y.square()) + 1e-6),
    "length": lambda y: F.normalize(y, dim=-1),
    "center": lambda y: y - mean(y),
    "deviation": lambda y: (y - mean(y)) / (y.std(-1, keepdim=True, unbiased=False) + 1e-5),
    "root of the count": lambda y: y / (y.norm(dim=-1, keepdim=True) / y.shape[-1] ** 0.5 + 1e-6),
}

OTHERS: dict[str, Function] = {
    "center added again": centered_around,
    "scale added": lambda y: y / root(y) + root(y),
    "scaled back": scaled_back,
    "moments injected again": positional,
    "gate": lambda y: y / (1 + (-mean(y)).exp()),
    "cosine": lambda y: y / mean(y.cos()),
    "share of softplus": lambda y: F.softplus(y) / F.softplus(y).sum(-1, keepdim=True),
    "share of sigmoid": lambda y: y.sigmoid() / y.sigmoid().sum(-1, keepdim=True),
    "share of exponentials": lambda y: y.exp() / y.exp().sum(-1, keepdim=True),
}


def is_exact(function: Function) -> bool:
    models, batch = (Net(4, function), Net(8, function)), torch.randn(5, 6)
    try:
        return verify(*models, match(*models, batch=batch), batch).exact
    except NotContainedError:
        return False


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_contained(name: str) -> None:
    assert is_exact(NORMS[name])


@pytest.mark.parametrize("name", OTHERS)
def test_other_uses_of_statistics_are_not(name: str) -> None:
    assert not is_exact(OTHERS[name])


CHOICES: dict[str, Function] = {
    "amax": lambda y: y + (2 * y.square()).amax(-1, keepdim=True),
    "max": lambda y: y + (2 * y.square()).max(-1, keepdim=True).values,
    "topk": lambda y: y + (2 * y.square()).topk(1, dim=-1).values,
    "sort": lambda y: y + (2 * y.square()).sort(dim=-1, descending=True).values[..., :1],
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_among_entries_that_grow_are_refused_by_name_whatever_the_batch_shows(name: str) -> None:
    """Extra zeros never win here, so that no batch can show a difference."""
    models, batch = (Net(4, CHOICES[name]), Net(8, CHOICES[name])), torch.randn(5, 6)
    with pytest.raises(NotContainedError, match=rf"compete in {name}\b"):
        match(*models, batch=batch)
