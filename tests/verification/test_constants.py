"""Buffers that training does not change, and of which the two models have other values, are each model's own."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seeking import Pair, Trainer, embed, extract, match, verify
from seeking.errors import SeekingError
from seeking.training import TrainConfig
from seeking.weights_map import tensors

BATCH = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A network with a buffer of each kind; ``uses_scale`` lets its function depend on its size."""

    def __init__(self, width: int, *, scale: float, persistent: bool = True, uses_scale: bool = True) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 2)
        self.uses_scale = uses_scale
        self.register_buffer("scale", torch.tensor(scale), persistent=persistent)
        self.register_buffer("places", torch.arange(width), persistent=persistent)
        self.register_buffer("mean", torch.rand(width), persistent=persistent)
        self.register_buffer("steps", torch.randint(9, ()), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)
            self.steps = self.steps + 1
        x = x - self.mean + self.places
        return self.leave(x * self.scale if self.uses_scale else x)


@pytest.mark.slow
@settings(max_examples=12)
@given(
    width=st.integers(2, 5), extra=st.integers(0, 3), persistent=st.booleans(), equal=st.booleans(), uses=st.booleans()
)
def test_a_constant_of_each_model_is_never_overwritten_and_the_proof_computes_with_it(
    width: int, extra: int, persistent: bool, equal: bool, uses: bool
) -> None:
    scales = 1 / width, 1 / width if equal else 1 / (width + extra + 1)
    base, motivated = (
        Net(size, scale=scale, persistent=persistent, uses_scale=uses)
        for size, scale in zip((width, width + extra), scales, strict=True)
    )
    weights_map = match(base, motivated, batch=BATCH)
    verdict = verify(base, motivated, weights_map, BATCH)
    assert verdict.exact == (equal or not uses), verdict.reason
    if not verdict:
        assert "the buffer scale, which training does not change" in verdict.reason
        assert not verdict.contained
    pair = Pair(base, motivated, weights_map, batch=BATCH)
    assert pair.constants == (set() if equal else {"scale"})
    assert verify(base, motivated, weights_map, BATCH).exact == verdict.exact
    base.train()(BATCH)
    with pair.motivated() as model:
        assert model.scale == torch.tensor(scales[1])
        mapped = weights_map.extract(tensors(model))
        assert all(torch.equal(mapped[name], getattr(base, name)) for name in ("places", "mean", "steps"))
        model.train()(BATCH)
    assert base.scale == torch.tensor(scales[0])
    mapped = weights_map.extract(tensors(motivated))
    assert all(torch.equal(mapped[name], getattr(base, name)) for name in ("places", "mean", "steps"))


MOVES: dict[str, Callable[[nn.Module, nn.Module], object]] = {
    "embed": lambda base, motivated: embed(base, motivated, batch=BATCH),
    "embed without a batch": lambda base, motivated: embed(base, motivated, extra="own"),
    "extract": lambda base, motivated: extract(
        motivated, base, batch={"signal": BATCH}, forward=lambda model, batch: model(batch["signal"])
    ),
    "extract without a batch": lambda base, motivated: extract(motivated, base),
    "pair without a batch": Pair,
}


@pytest.mark.filterwarnings("ignore::seeking.matching.MatchWarning")
@pytest.mark.parametrize("name", MOVES)
def test_initializations_leave_constants_and_move_state(name: str) -> None:
    base, motivated = Net(3, scale=1 / 3), Net(5, scale=1 / 5)
    MOVES[name](base, motivated)
    assert (base.scale, motivated.scale) == (torch.tensor(1 / 3), torch.tensor(1 / 5))
    assert torch.equal(base.mean, motivated.mean[:3])
    assert base.steps == motivated.steps


def test_frozen_statistics_are_constants_and_trained_ones_are_not() -> None:
    for frozen in (False, True):
        models = [nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2)) for width in (4, 6)]
        for number, model in enumerate(models):
            model[1].train(not frozen)
            nn.init.constant_(model[1].running_mean, float(number))
            model[1].num_batches_tracked.fill_(number)
        pair = Pair(*models, match(*models, batch=BATCH), norm="shared", batch=BATCH)
        assert pair.constants == ({"1.running_mean", "1.num_batches_tracked"} if frozen else set())
        verdict = verify(*models, pair.map, BATCH)
        assert verdict.exact is not frozen
        assert verdict.exact or "the buffer 1.running_mean, which training does not change" in verdict.reason


def test_constants_that_differ_by_rounding_alone_are_equal() -> None:
    models = Net(3, scale=0.1), Net(5, scale=0.1 * (1 + 3e-7))
    assert models[0].scale != models[1].scale
    assert not Pair(*models, match(*models, batch=BATCH), batch=BATCH).constants


def test_the_trainer_refuses_a_motivated_model_that_computes_with_another_constant() -> None:
    loader = [(BATCH, torch.zeros(6, dtype=torch.long))] * 2
    models = Net(3, scale=1 / 3), Net(5, scale=1 / 5)
    with pytest.raises(SeekingError, match=r"the buffer scale, .* is 0\.3333 in the base and 0\.2 in scale of"):
        Trainer(*models, train_loader=loader, config=TrainConfig(epochs=1))
