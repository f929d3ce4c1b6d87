"""Pairs that are contained by construction, all of which are exact, and pairs that are not, of which none is.

The pairs are drawn: two models are made of the same parts, and one part of the motivated model is then another.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from seeking import MatchWarning, NotContainedError, SeekingError, match, verify

VECTORS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


class ByHand(nn.Module):
    """A norm under another name, with parameters of other names; statistics that are none of a layer."""

    def __init__(self, width: int, kind: str, eps: float) -> None:
        super().__init__()
        self.kind, self.eps, self.width = kind, eps, width
        self.gamma, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "root mean square":
            return self.gamma * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.kind == "deviation":
            return self.gamma * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + self.eps) + self.beta
        if self.kind == "functional":
            return F.layer_norm(x, x.shape[-1:], eps=self.eps)
        if self.kind == "sums":
            x = x - x.sum(-1, keepdim=True) / self.width
            return x / ((x * x).sum(-1, keepdim=True) / self.width + self.eps).sqrt()
        if self.kind == "length":
            return x / (x.norm(dim=-1, keepdim=True) + self.eps)
        if self.kind == "scaled length":
            return x / (x.norm(dim=-1, keepdim=True) * self.width**-0.5 + self.eps) * self.gamma
        if self.kind == "greatest":
            return x / (x.abs().amax(-1, keepdim=True) + self.eps)
        gate = x.sigmoid()
        return self.gamma * (x * gate) * torch.rsqrt((x * gate).pow(2).mean(-1, keepdim=True) + self.eps)


BY_HAND = [
    "root mean square", "deviation", "functional", "sums", "length", "scaled length", "greatest", "gated",
]  # fmt: skip
LAYERS: dict[str, Callable[[int, float], nn.Module]] = {
    "layer": lambda width, eps: nn.LayerNorm(width, eps),
    "layer, no weights": lambda width, eps: nn.LayerNorm(width, eps, elementwise_affine=False),
    "rms": lambda width, eps: nn.RMSNorm(width, eps),
    "batch": lambda width, eps: nn.BatchNorm1d(width, eps),
    **{kind: lambda width, eps, kind=kind: ByHand(width, kind, eps) for kind in BY_HAND},  # type: ignore[misc]
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh, "silu": F.silu, "softplus": F.softplus, "sine": torch.sin,
    "relu6": F.relu6, "relu20": lambda x: x.clamp(0, 20),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a model is made of."""

    width: int
    hidden: int
    depth: int
    norm: str = "layer"
    eps: float = 1e-5
    groups: int = 0
    activation: str = "relu"
    constant: float = 1.0
    masked: tuple[bool, ...] = (True, True, True, True, True)
    head_in_training: str = ""
    compete: str = ""


COMPETITIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: x.max(-1, keepdim=True).values,
    "amax": lambda x: x.amax(-1, keepdim=True),
    "min": lambda x: x.amin(-1, keepdim=True),
    "argmax": lambda x: x.argmax(-1, keepdim=True).to(x.dtype),
    "topk": lambda x: x.topk(2, dim=-1).values.sum(-1, keepdim=True),
    "sort": lambda x: x.sort(-1).values[:, -1:],
    "kthvalue": lambda x: x.kthvalue(2, -1, keepdim=True).values,
    "cummax": lambda x: x.cummax(-1).values[:, -1:],
    "pooled": lambda x: F.adaptive_max_pool1d(x[:, None], 1)[:, 0],
    "nearest code": lambda x: (x - 1).square().neg().argmax(-1, keepdim=True).to(x.dtype),
}


class Made(nn.Module):
    """Residual blocks over five positions of one token each, with a mask that is a constant."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        self.enter = nn.Linear(5, parts.width)
        self.blocks = nn.ModuleList(Block(parts) for _ in range(parts.depth))
        self.norm = _norm(parts)
        self.leave = nn.Linear(parts.width, 3)
        self.aux = nn.Linear(2 * parts.width, 2)
        self.scored = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Any:
        mask = torch.tensor(self.parts.masked, dtype=x.dtype, device=x.device)
        x = first = self.enter(x * mask)
        for block in self.blocks:
            x = x + block(x)
        x = self.norm(x) * self.parts.constant
        y = self.leave(x)
        if self.parts.compete:
            y = y + self.scored(COMPETITIONS[self.parts.compete](x))
        if self.training and self.parts.head_in_training:
            return y, self.aux(ACTIVATIONS[self.parts.head_in_training](torch.cat([first, x], -1)))
        return y


class Block(nn.Module):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.norm = _norm(parts)
        self.up, self.down = nn.Linear(parts.width, parts.hidden), nn.Linear(parts.hidden, parts.width)
        self.activation, self.dropout = ACTIVATIONS[parts.activation], nn.Dropout(0.3)
        self.register_buffer("mask", torch.tril(torch.ones(6, 6)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.dropout(self.activation(self.up(self.norm(x)))))
        rows: Tensor = (self.mask / self.mask.sum(-1, keepdim=True)) @ x
        return rows


def _norm(parts: Parts) -> nn.Module:
    if parts.groups:
        return nn.GroupNorm(parts.groups, parts.width, parts.eps)
    return LAYERS[parts.norm](parts.width, parts.eps)


@st.composite
def contained(draw: st.DrawFn) -> tuple[Parts, Parts]:
    """The parts of a base, and of a motivated model that is larger in some direction and else the same."""
    groups = draw(st.sampled_from([0, 0, 0, 1, 2, 3]))
    step = groups or 1
    width = step * draw(st.integers(1 if groups > 1 else 2, 4))
    base = Parts(
        width=width,
        hidden=draw(st.integers(1, 6)),
        depth=draw(st.integers(1, 2)),
        norm=draw(st.sampled_from(sorted(LAYERS))),
        eps=draw(st.sampled_from([1e-3, 1e-5, 1e-6])),
        groups=groups,
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        constant=draw(st.sampled_from([1.0, 0.5])),
        head_in_training=draw(st.sampled_from(["", *sorted(ACTIVATIONS)])),
    )
    more_groups = groups > 1 and draw(st.booleans())
    motivated = dataclasses.replace(
        base,
        width=2 * width if more_groups else width + step * draw(st.integers(0, 3)),
        groups=2 * groups if more_groups else groups,
        hidden=base.hidden + draw(st.integers(0, 4)),
        depth=base.depth + draw(st.integers(0, 2)),
    )
    return base, motivated


NORM_KINDS = {
    name: kind
    for kind, names in enumerate(
        [["layer", "layer, no weights", "functional", "sums"], ["rms", "root mean square", "scaled length"], ["batch"]]
    )
    for name in names
}
"""Norms that compute alike under another name."""


@st.composite
def not_contained(draw: st.DrawFn) -> tuple[Parts, Parts, str]:
    """As ``contained``, but one part of the motivated model computes something else."""
    # A norm over one channel is zero, behind which nothing shows.
    base, motivated = draw(contained().filter(lambda pair: pair[0].groups != pair[0].width))
    what = draw(
        st.sampled_from(["norm", "eps", "groups", "activation", "constant", "mask", "in training", "competition"])
    )
    if what == "norm":
        base, motivated = (dataclasses.replace(parts, groups=0) for parts in (base, motivated))
        kind = NORM_KINDS.get(base.norm, base.norm)
        others = [name for name in sorted(LAYERS) if NORM_KINDS.get(name, name) != kind]
        motivated = dataclasses.replace(motivated, norm=draw(st.sampled_from(others)))
    elif what == "eps":
        motivated = dataclasses.replace(motivated, eps=base.eps * draw(st.sampled_from([0.1, 10.0])))
    elif what == "groups":
        width = 12 * draw(st.integers(1, 2))
        base = dataclasses.replace(base, width=12, groups=draw(st.sampled_from([1, 2, 3])))
        # Groups that are smaller than the base's, or fewer, hold no groups of the base.
        others = [n for n in (1, 2, 3, 4, 6) if n < base.groups or width // n < 12 // base.groups]
        motivated = dataclasses.replace(motivated, width=width, groups=draw(st.sampled_from(others)))
    elif what == "activation":
        others = sorted(ACTIVATIONS.keys() - {base.activation})
        motivated = dataclasses.replace(motivated, activation=draw(st.sampled_from(others)))
    elif what == "constant":
        motivated = dataclasses.replace(motivated, constant=draw(st.sampled_from([2.0, 0.999])))
    elif what == "mask":
        masked = draw(st.lists(st.booleans(), min_size=5, max_size=5).filter(lambda mask: not all(mask)))
        motivated = dataclasses.replace(motivated, masked=tuple(masked))
    elif what == "in training":
        base = dataclasses.replace(base, head_in_training=draw(st.sampled_from(sorted(ACTIVATIONS))))
        others = ["", *sorted(ACTIVATIONS.keys() - {base.head_in_training})]
        motivated = dataclasses.replace(motivated, head_in_training=draw(st.sampled_from(others)))
    else:
        compete = draw(st.sampled_from(sorted(COMPETITIONS)))
        base = dataclasses.replace(base, compete=compete)
        motivated = dataclasses.replace(motivated, compete=compete, width=base.width + 3 * max(base.groups, 1))
        motivated = dataclasses.replace(motivated, groups=base.groups)
    return base, motivated, what


def judged(base: Parts, motivated: Parts) -> tuple[bool, str]:
    """Whether the pair is called exact, and why not."""
    torch.manual_seed(0)
    models = Made(base), Made(motivated)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MatchWarning)
        try:
            verdict = verify(*models, match(*models, batch=VECTORS), VECTORS)
        except NotContainedError as error:
            return False, str(error)
    return verdict.exact, verdict.reason


drawn = settings(
    max_examples=250 if settings.default.max_examples > 1000 else 12,  # Under the profile soak.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@drawn
@given(contained())
def test_no_contained_pair_is_refused(pair: tuple[Parts, Parts]) -> None:
    exact, reason = judged(*pair)
    assert exact, reason


@drawn
@given(not_contained())
def test_no_other_pair_is_called_exact(pair: tuple[Parts, Parts, str]) -> None:
    base, motivated, what = pair
    exact, reason = judged(base, motivated)
    note(f"{what}: {reason}")
    assert not exact


class Twice(nn.Module):
    """One block that is applied several times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.block, self.leave, self.times = nn.Linear(5, 5), nn.Linear(5, 2), times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.block(x).tanh()
        y: Tensor = self.leave(x)
        return y


def test_a_layer_that_runs_more_often_is_named() -> None:
    verdict = verify(Twice(2), Twice(3), match(Twice(2), Twice(3), batch=VECTORS), VECTORS)
    assert not verdict.contained
    assert "block runs 2 times in the base and 3 times in the motivated model" in verdict.reason


def test_what_no_forward_reaches_is_said_and_heads_for_training_are_mapped_like_others() -> None:
    base, motivated = (
        Made(Parts(width=width, hidden=3, depth=1, head_in_training=head)) for width, head in ((4, "relu"), (6, "relu"))
    )
    weights_map = match(base, motivated, batch=VECTORS)
    assert str(weights_map.entries["aux.weight"].index[1]) == "0:4, 6:10"
    verdict = verify(base, motivated, weights_map, VECTORS)
    assert verdict, verdict.reason
    assert verdict.not_judged == ("scored.weight", "scored.bias")
    assert "not judged, since no forward pass reaches them: scored.weight, scored.bias" in verdict.reason


def test_a_reduction_over_channels_that_grow_is_named() -> None:
    class Averaged(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(5, width), nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.leave(self.enter(x).mean(-1, keepdim=True))
            return y

    verdict = verify(Averaged(4), Averaged(6), match(Averaged(4), Averaged(6), batch=VECTORS), VECTORS)
    assert not verdict.contained
    assert "mean over channels of which the base has only a part" in verdict.reason


def test_of_several_outputs_those_are_judged_that_are_used() -> None:
    class Several(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(5, width), nn.Linear(width, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            x = self.enter(x)
            return {"logits": self.leave(x), "mean": x.mean(-1)}

    base, motivated = Several(4), Several(6)
    for forward, exact in (
        (lambda model, x: model(x)["logits"], True),
        (lambda model, x: model(x)["logits"][:, :1].square().sum(), True),
        (lambda model, x: model(x)["mean"], False),
        (lambda model, x: model(x), False),
    ):
        weights_map = match(base, motivated, batch=VECTORS, forward=forward)
        assert verify(base, motivated, weights_map, VECTORS, forward=forward).exact == exact


def test_nan_in_the_batch_is_said() -> None:
    base, motivated = (Made(Parts(width=width, hidden=3, depth=1)) for width in (4, 6))
    with pytest.raises(SeekingError, match="there is NaN in the batch"):
        verify(base, motivated, match(base, motivated, batch=VECTORS), VECTORS * float("nan"))
