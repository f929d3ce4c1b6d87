"""Weights that are computed from others, by hand or under parametrizations: of which a part is shared."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import seeking

BATCH = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Computed(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, weight: Tensor) -> Tensor:
        return self.function(weight)


class ByHand(nn.Linear):
    def __init__(self, rows: int, columns: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(rows, columns)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.function(self.weight), self.bias)


def registered(rows: int, columns: int, function: Callable[[Tensor], Tensor]) -> nn.Module:
    layer = nn.Linear(rows, columns)
    parametrize.register_parametrization(layer, "weight", Computed(function))
    return layer


def model(width: int, layer: Callable[[int, int], nn.Module]) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(layer(6, width), nn.ReLU(), layer(width, width), nn.ReLU(), layer(width, 2))


def verdict_of(layer: Callable[[int, int], nn.Module]) -> seeking.Verification:
    base, motivated = model(4, layer), model(7, layer)
    return seeking.verify(base, motivated, seeking.match(base, motivated, batch=BATCH), BATCH)


CONTAINED: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "squared": (torch.square, True),
    "bounded": (torch.tanh, True),
    "of unit rows": (lambda weight: weight / weight.norm(dim=1, keepdim=True), True),
    "of unit rows, by a root": (lambda weight: weight * weight.square().sum(1, keepdim=True).rsqrt(), True),
    "positive": (nn.functional.softplus, False),
    "of a softmax": (lambda weight: (weight * 3).softmax(1), False),
}


@pytest.mark.parametrize("name", CONTAINED)
@pytest.mark.parametrize("make", [registered, ByHand])
def test_a_part_of_a_computed_weight_is_judged_by_what_is_computed(
    name: str, make: Callable[[int, int, Callable[[Tensor], Tensor]], nn.Module]
) -> None:
    function, contained = CONTAINED[name]
    try:
        verdict = verdict_of(lambda rows, columns: make(rows, columns, function))
    except seeking.SeekingError:  # A part of what is computed from the whole is told before.
        assert not contained
    else:
        assert verdict.exact == contained, verdict.reason


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning", "ignore::seeking.MatchWarning")
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_over_wider_rows_is_shared_and_embedded(norm: Callable[..., nn.Module], dim: int | None) -> None:
    def layer(rows: int, columns: int) -> nn.Module:
        return norm(nn.Linear(rows, columns), dim=dim)

    assert verdict_of(layer)
    if dim != 0:  # Extra rows that are not zero count.
        return
    base, motivated = model(4, layer).eval(), model(7, layer).eval()
    seeking.embed(base, motivated, batch=BATCH)
    torch.testing.assert_close(base(BATCH), motivated(BATCH))
    pair = seeking.Pair(base, motivated, batch=BATCH)
    of = (lambda layer: layer.weight_g) if norm is nn.utils.weight_norm else lengths
    with pair.motivated() as wider, torch.no_grad():
        of(wider[0]).mul_(2)
    assert torch.equal(of(base[0]), of(wider[0])[:4])


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning", "error::seeking.MatchWarning")
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, nn.utils.weight_norm])
def test_a_decoder_of_sound_under_weight_norm_may_grow(norm: Callable[..., nn.Module]) -> None:
    """Its transposed convolutions have a length for each channel that they read, not for each that they put out."""

    def decoder(width: int) -> nn.Module:
        layers = nn.Conv1d(3, 2 * width, 3), nn.ConvTranspose1d(2 * width, width, 4, 2), nn.Conv1d(width, 1, 3)
        return nn.Sequential(*(part for layer in layers for part in (nn.Sigmoid(), norm(layer))))

    sound = torch.randn(2, 3, 8)
    models = decoder(4), decoder(6)
    verdict = seeking.verify(*models, seeking.match(*models, batch=sound), sound)
    assert verdict, verdict.reason


def lengths(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original1  # type: ignore[no-any-return, union-attr]


def test_weight_norm_by_hand_is_embedded_without_rows_of_zeros() -> None:
    class Normed(nn.Module):
        def __init__(self, columns: int, rows: int) -> None:
            super().__init__()
            self.directions, self.lengths = nn.Parameter(torch.randn(rows, columns)), nn.Parameter(torch.ones(rows, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.lengths * self.directions / self.directions.norm(dim=1, keepdim=True)).T

    base, motivated = model(4, Normed), model(7, Normed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seeking.embed(base, motivated, batch=BATCH)
    torch.testing.assert_close(base(BATCH), motivated(BATCH))
    assert motivated[0].directions[4:].any()


def test_what_is_undefined_for_extra_weights_of_zero_must_not_be_used() -> None:
    """Where the quotient of two zeros is added to what the base computes, it matters what it is."""

    def added(weight: Tensor) -> Tensor:
        return weight + (weight / weight.norm(dim=1, keepdim=True)).sum(0, keepdim=True)

    assert not verdict_of(lambda rows, columns: ByHand(rows, columns, added))
