"""Outputs of all layers, stacked, and what is made of the stack, in models of other widths and depths."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import seeking

BATCH = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


class Stacked(nn.Module):
    """A head over a mix of all hidden states, the first dimension of the stack."""

    def __init__(self, mix: str, width: int, depth: int, with_input: bool = True) -> None:
        super().__init__()
        self.mix, self.with_input = mix, with_input
        self.enter, self.head = nn.Linear(6, width), nn.Linear(width, 3)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        count = depth + with_input
        shapes = {"by channel": (count, width), "softmax": (width,)}
        self.weights = nn.Parameter(torch.randn(shapes.get(mix, (count,))))
        self.listed = nn.ParameterList(nn.Parameter(torch.randn(1)) for _ in range(count if mix == "list" else 0))
        self.flat = nn.Linear(count * width, width) if mix == "flat" else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        outputs = [x] if self.with_input else []
        for layer in self.layers:
            x = x + layer(x).tanh()
            outputs.append(x)
        y: Tensor = self.head({**WEIGHTED, **UNWEIGHTED}[self.mix](self, torch.stack(outputs)))
        return y


WEIGHTED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "sum": lambda model, stack: (model.weights[:, None, None] * stack).sum(0),
    "product": lambda model, stack: torch.einsum("l,lbc->bc", model.weights, stack),
    "one by one": lambda model, stack: sum(w * x for w, x in zip(model.weights, stack.unbind(0), strict=True)),  # type: ignore[misc,return-value]
    "by channel": lambda model, stack: (model.weights[:, None] * stack).sum(0),
    "list": lambda model, stack: sum(w * x for w, x in zip(model.listed, stack, strict=True)),  # type: ignore[misc,return-value]
    "flat": lambda model, stack: model.flat(stack.transpose(0, 1).flatten(1)),
}
"""With a weight for each layer, of which those of extra layers may be zero."""

UNWEIGHTED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "mean": lambda model, stack: stack.mean(0),
    "std": lambda model, stack: stack.std(0),
    "max": lambda model, stack: stack.max(0).values,
    "amin": lambda model, stack: stack.amin(0),
    "median": lambda model, stack: stack.median(0).values,
    "logsumexp": lambda model, stack: stack.logsumexp(0),
    "softmax": lambda model, stack: (stack * (stack @ model.weights).softmax(0)[..., None]).sum(0),
}
"""More layers give another result, whatever the weights."""


@pytest.mark.slow
@settings(max_examples=15)
@given(
    st.sampled_from([*WEIGHTED, *UNWEIGHTED]),
    *[st.integers(1, 4)] * 2,
    st.integers(0, 4),
    st.sampled_from(["leading", "even"]),
)
def test_any_mix_of_layers_is_exact_where_width_alone_differs(
    mix: str, width: int, depth: int, wider: int, policy: Any
) -> None:
    base, motivated = Stacked(mix, width, depth), Stacked(mix, width + wider, depth)
    verdict = seeking.verify(base, motivated, seeking.match(base, motivated, batch=BATCH, width=policy), BATCH)
    assert verdict, verdict.reason


@pytest.mark.slow
@settings(max_examples=15)
@given(
    st.sampled_from([*WEIGHTED]),
    *[st.integers(1, 3)] * 3,
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from(["leading", "spread"]),
)
def test_extra_layers_have_extra_weights_in_a_sum(
    mix: str, width: int, depth: int, deeper: int, wider: int, with_input: bool, policy: Any
) -> None:
    base, motivated = Stacked(mix, width, depth, with_input), Stacked(mix, width + wider, depth + deeper, with_input)
    weights_map = seeking.match(base, motivated, batch=BATCH, depth=policy)
    verdict = seeking.verify(base, motivated, weights_map, BATCH)
    assert verdict, verdict.reason
    seeking.embed(base, motivated, weights_map, batch=BATCH)
    assert torch.allclose(base(BATCH), motivated(BATCH), atol=1e-5)


@settings(max_examples=8)
@given(
    st.integers(1, 3), st.integers(2, 4), st.integers(0, 2), st.integers(0, 2), st.sampled_from(["leading", "spread"])
)
def test_what_lies_between_layers_grows_with_them(width: int, depth: int, deeper: int, wider: int, policy: Any) -> None:
    """As positions that are added anew between the layers of a detector."""

    class Between(nn.Module):
        def __init__(self, width: int, depth: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(6, width), nn.Linear(width, 3)
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
            self.between = nn.Parameter(torch.randn(depth - 1, 1, width))

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            for place, layer in enumerate(self.layers):
                x = x + layer(x).tanh()
                if place < len(self.between):
                    x = x + self.between[place]
            leave: Tensor = self.leave(x)
            return leave

    base, motivated = Between(width, depth), Between(width + wider, depth + deeper)
    weights_map = seeking.match(base, motivated, batch=BATCH, depth=policy)
    verdict = seeking.verify(base, motivated, weights_map, BATCH)
    assert verdict, verdict.reason


@pytest.mark.parametrize("mix", UNWEIGHTED)
def test_an_operation_over_the_outputs_of_more_layers_is_named(mix: str) -> None:
    base, motivated = Stacked(mix, 4, 2), Stacked(mix, 4, 4)
    verdict = seeking.verify(base, motivated, seeking.match(base, motivated, batch=BATCH), BATCH)
    assert not verdict.exact and not verdict.contained
    assert f"{mix} over 5 joined parts, such as the outputs of layers, 3 in the base" in verdict.reason


def test_shares_of_layers_in_a_softmax_are_refused() -> None:
    class Shares(Stacked):
        def forward(self, x: Tensor) -> Tensor:
            outputs = [x := self.enter(x), *(x := x + layer(x).tanh() for layer in self.layers)]
            y: Tensor = self.head((self.weights.softmax(0)[:, None, None] * torch.stack(outputs)).sum(0))
            return y

    with pytest.raises(seeking.NotContainedError, match=r"weights.*3 in the base, 5 .*number of shares in a softmax"):
        seeking.match(Shares("sum", 4, 2), Shares("sum", 4, 4), batch=BATCH)


def test_pairs_that_are_taken_apart_are_not_taken_for_layers() -> None:
    """Rotary positions, with as many pairs as the motivated model has layers and heads."""

    class Rotary(nn.Module):
        def __init__(self, heads: int, depth: int) -> None:
            super().__init__()
            self.heads = heads
            self.enter, self.leave = nn.Linear(6, 8 * heads), nn.Linear(8 * heads, 2)
            self.layers = nn.ModuleList(nn.Linear(8 * heads, 8 * heads) for _ in range(depth))

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            for layer in self.layers:
                odd, even = layer(x).view(len(x), self.heads, 4, 2).unbind(-1)
                x = x + torch.stack([-even, odd], -1).flatten(1)
            y: Tensor = self.leave(x)
            return y

    for depth in (1, 2):
        base, motivated = Rotary(1, depth), Rotary(2, 2)
        verdict = seeking.verify(base, motivated, seeking.match(base, motivated, batch=BATCH), BATCH)
        assert verdict, verdict.reason
