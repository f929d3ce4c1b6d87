"""Conditions on signals with less noise, and those that learn: what they decide, what they cost, and resuming."""

import dataclasses
import itertools
import math
import random
import statistics
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from runs import image_folder
from tiny import TINY, tiny
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import Condition, Outcome, SeekingError, Signals, Trainer, parse_condition
from seeking.checkpointing.serialize import pack, unpack
from seeking.conditions import BelowTrend, Exp3, GradientAgreement, HeldOutDecrease, LowGradNorm, SmoothedDecrease
from seeking.conditions.agreement import cosine
from seeking.data import DataConfig, load
from seeking.errors import RunWarning
from seeking.weights_map import tensors

NEW = ["smoothed:1", "below_trend:0,0.5", "grad_norm:0,0.5", "held_out:3", "exp3:0.7,2", "agreement:0,5"]

numbers = st.lists(st.integers(-1000, 1000).map(float), max_size=60)


def held_out(batch_size: int = 4) -> DataLoader[Any]:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(5))
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {
        f"{name} {key}": tensor.clone()
        for name, each in trainer.learners.items()
        for key, tensor in tensors(each.module).items()
    }


@given(st.integers(1, 3), st.floats(0, 0.95), numbers)
def test_smoothed_decrease_is_its_definition(n: int, decay: float, values: list[float]) -> None:
    condition = SmoothedDecrease(n, decay)
    averages = [
        sum(decay ** (place - i) * values[i] for i in range(place + 1)) / sum(decay**i for i in range(place + 1))
        for place in range(len(values))
    ]
    for place, loss in enumerate(values):
        held = condition.update(loss)
        last = [*zip([None, *averages][: place + 1], values[: place + 1], strict=True)][-n:]
        margins = [value - before for before, value in last if before is not None]
        if all(abs(margin) > 1e-6 for margin in margins):
            assert held == (len(margins) == n and all(margin < 0 for margin in margins))


@pytest.mark.parametrize("slope", [0.0, -1e-3, 1e-2])
@pytest.mark.parametrize(("deviations", "rate"), [(1.0, 0.159), (0.0, 0.5), (-1.0, 0.841)])
def test_noise_around_any_linear_trend_is_below_it_as_often(slope: float, deviations: float, rate: float) -> None:
    draw = random.Random(0)
    condition = BelowTrend(deviations)
    decisions = [condition.update(5 + slope * place + draw.gauss(0, 0.3)) for place in range(5000)]
    assert statistics.mean(decisions[100:]) == pytest.approx(rate, abs=0.03)


@pytest.mark.parametrize(("n", "rate"), [(1, 0.5), (2, 0.242), (3, 0.114)])
def test_noise_falls_by_chance_as_often_as_the_docs_say(n: int, rate: float) -> None:
    draw = random.Random(0)
    condition = SmoothedDecrease(n)
    assert statistics.mean(condition.update(draw.gauss(5, 0.3)) for _ in range(30_000)) == pytest.approx(rate, abs=0.01)


@given(st.floats(-2, 2), numbers, st.integers(-6, 6))
def test_the_scale_of_a_loss_does_not_matter_to_its_trend(deviations: float, values: list[float], power: int) -> None:
    unscaled, scaled, norms = BelowTrend(deviations), BelowTrend(deviations), LowGradNorm(deviations)
    for value in values:
        held = unscaled.update(value)
        assert scaled.update(value * 2.0**power) == held
        assert norms.update(0.0, grad_norm=value) == held


@given(st.integers(1, 5), st.integers(1, 3), st.lists(st.floats(0, 10) | st.just(math.nan), max_size=60))
def test_the_held_out_loss_is_measured_when_it_is_due_and_decides_until_then(
    k: int, n: int, values: list[float]
) -> None:
    condition, asked = HeldOutDecrease(k, n), []
    for batch, value in enumerate(values):

        def measure(batch: int = batch, value: float = value) -> float:
            asked.append(batch)
            return value

        held = condition.update(1.0, held_out_loss=measure)
        seen = [values[each] for each in asked][-n - 1 :]
        falls = all(later < earlier for earlier, later in itertools.pairwise(seen))
        assert held == (len(seen) == n + 1 and falls and all(map(math.isfinite, seen)))
    assert asked == [batch for batch in range(len(values)) if (batch + 1) % k == 0]


def play(condition: Condition, worth: float, steps: int = 2000, taken: bool = True) -> list[bool]:
    """A world in which a step of the base is worth 1 per FLOP, and a motivated one ``worth``, if it is taken."""
    noise = random.Random(1)
    loss, flops, decisions = 0.0, 0.0, []
    for _ in range(steps):
        loss, flops = loss - 1 + noise.gauss(0, 0.5), flops + 1
        decisions.append(condition.update(1.0, held_out_loss=lambda loss=loss: loss, flops_spent=flops))
        if decisions[-1]:
            loss, flops = loss - 2 * worth * taken + noise.gauss(0, 0.5), flops + 2
            condition.feedback(Outcome(loss=1.0, grad_norm=1.0, flops=2.0, taken=taken))
    return decisions


@pytest.mark.parametrize("seed", range(3))
def test_the_bandit_learns_whether_motivated_steps_pay(seed: int) -> None:
    shares = {worth: statistics.mean(play(Exp3(1, 5, seed), worth)[1000:]) for worth in (0.5, 1.0, 2.0)}
    assert shares[0.5] < 0.4 < shares[1.0] < 0.7 < shares[2.0]


@given(st.floats(0, 1), st.integers(1, 20), st.floats(0, 3), st.integers(0, 9))
def test_the_bandit_keeps_its_limit_and_draws_from_its_seed_alone(
    limit: float, k: int, worth: float, seed: int
) -> None:
    decisions = play(Exp3(limit, k, seed), worth, steps=150)
    assert sum(decisions) <= limit * (150 + k)
    assert decisions == play(Exp3(limit, k, seed), worth, steps=150)


def test_the_bandit_learns_from_its_own_plays_alone() -> None:
    condition = Exp3(1.0, 5)
    decided = play(condition & parse_condition("never"), 2.0, 500)
    assert not any(decided)
    assert condition.advantage <= 0


def test_the_bandit_learns_nothing_from_motivated_steps_that_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost FLOPs and change nothing, which says nothing of steps that are taken."""
    condition, learnt = Exp3(1.0, 5), []
    monkeypatch.setattr(condition, "_learn", lambda reward: learnt.append(condition.motivated))
    assert any(play(condition, 2.0, 500, taken=False)) and learnt and not any(learnt)
    learnt.clear()
    assert any(play(condition, 2.0, 500)) and any(learnt) and not all(learnt)


# Squares of much smaller numbers are zero in float32.
vectors = st.lists(st.floats(-10, 10, width=32).map(lambda x: round(x, 3)), min_size=3, max_size=3)


@given(vectors, vectors)
def test_the_cosine_is_that_of_all_shared_parameters_as_one_vector(first: list[float], second: list[float]) -> None:
    both = torch.tensor(first), torch.tensor(second)
    named = [{"a": each[:1], "b": each[1:].reshape(2, 1), f"own{number}": each} for number, each in enumerate(both)]
    expected = float(F.cosine_similarity(both[0].double(), both[1].double(), dim=0, eps=1e-30))
    assert cosine(*named) == pytest.approx(expected, abs=1e-3)


def test_agreement_is_with_the_latest_motivated_step_and_that_is_not_old() -> None:
    condition = GradientAgreement(0.0, refresh=3)

    def update(value: float) -> bool:
        return condition.update(1.0, gradients={"w": torch.tensor([value, 1.0])})

    def feedback(value: float) -> None:
        gradients = {"w": torch.tensor([value, 0.0])}
        condition.feedback(Outcome(loss=1.0, grad_norm=1.0, flops=1.0, shared_gradients=lambda: gradients))

    assert update(1.0), "there is none yet"
    feedback(1.0)
    assert [update(value) for value in (1.0, -1.0)] == [True, False]
    again = GradientAgreement(0.0, refresh=3)
    again.load_state_dict(unpack(*pack(condition.state_dict())))
    condition = again
    assert [update(value) for value in (-1.0, -1.0)] == [False, True], "too old"
    feedback(-1.0)
    assert [update(value) for value in (-1.0, 1.0)] == [True, False]
    with pytest.raises(SeekingError, match=r"gradients of w of the shapes \[3\] and \[2\]"):
        condition.update(1.0, gradients={"w": torch.zeros(3)})


@pytest.mark.parametrize("text", NEW)
def test_where_the_base_rests_the_same_loss_is_no_news(text: str) -> None:
    rested, unrested = parse_condition(text), parse_condition(text)
    draw = random.Random(0)
    for place in range(40):
        loss = draw.random()
        known = {"grad_norm": loss, "held_out_loss": lambda: 1.0, "flops_spent": 1.0 + place, "loss": loss}
        known["gradients"] = {"w": torch.tensor([loss - 0.5])}
        signals = Signals(**known)
        assert rested.update(loss, signals) == unrested.update(loss, signals)
        if text.startswith(("held_out", "exp3")):  # They count batches, and measure by themselves.
            continue
        resting = dataclasses.replace(signals, base_stepped=False, grad_norm=None, gradients=None)
        for _ in range(draw.randrange(3)):
            assert not rested.update(loss, resting)


@pytest.mark.parametrize("text", [text for text in NEW if not text.startswith(("smoothed", "below"))])
def test_a_signal_that_is_missing_is_named(text: str) -> None:
    condition = parse_condition(text)
    decisions = map(condition.update, [1.0] * 3)
    with pytest.raises(SeekingError, match=f"{condition} needs the signal "):
        list(decisions)


@pytest.mark.slow
@pytest.mark.parametrize("text", [*NEW, "matched(exp3:0.7,2) | agreement:0.5,9 & smoothed:1"])
def test_a_resumed_run_is_the_uninterrupted_one(text: str, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, condition=text, save_every="10m")
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 1)
    options: dict[str, Any] = {"train_loader": loader, "held_out": held_out()}

    class Stop(Exception):
        pass

    def stop(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == 13:
            raise Stop

    whole = tiny(tmp_path / "whole", config, **options)
    result = whole.fit()
    with pytest.raises(Stop):
        tiny(tmp_path / "parts", config, **options, listeners=[stop]).fit()
    resumed = tiny(tmp_path / "parts", config, **options, resume=True)
    again = resumed.fit()
    assert 0 < result.cost.motivated_batches < 32
    assert again.history == result.history
    assert again.cost == result.cost
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())


class Noisy(nn.Sequential):
    """Draws random numbers in evaluation mode, too."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(1)


def test_measuring_the_held_out_loss_changes_nothing_but_the_cost() -> None:
    def trained(condition: str, data: Any) -> tuple[Trainer, Any]:
        models = Noisy(3), Noisy(5)
        loaders = {"train_loader": held_out(), "eval_loader": held_out(), "held_out": data}
        torch.manual_seed(1)
        trainer = Trainer(*models, **loaders, config=dataclasses.replace(TINY, condition=condition, verify=False))
        return trainer, trainer.fit()

    torch.manual_seed(0)
    plain, before = trained("every:2", None)
    torch.manual_seed(0)
    measured, after = trained("every:2 | held_out:3,9", held_out(5))
    assert all(torch.equal(tensor, weights(measured)[name]) for name, tensor in weights(plain).items())
    assert after.cost.held_out_samples == 2 * 12
    assert after.cost.total == before.cost.total + 24 * after.cost.base_forward_flops
    assert [row["step"] for row in after.history if "held_out_loss" in row] == [2, 5]


def test_the_held_out_loss_is_that_of_the_base_after_its_step() -> None:
    seen: list[float] = []

    class Asking(Condition):
        needs_held_out = True

        def decide(self, signals: Signals) -> bool:
            assert signals.held_out_loss
            seen.append(signals.held_out_loss())
            x, y = held_out().dataset.tensors
            expected = F.cross_entropy(trainer.pair.base(x), y).item()
            assert seen[-1] == signals.held_out_loss() == pytest.approx(expected, rel=1e-5)
            return True

    trainer = tiny(None, TINY, condition=Asking(), held_out=held_out(5))
    result = trainer.fit()
    assert len(set(seen)) == 8
    assert result.cost.held_out_samples == 8 * 12, "once a batch, however often it is asked for"


class Undecided(Condition):
    """Its author has misspelt a name."""

    def hold(self, loss: float, **signals: Any) -> bool:
        return True


class Forgetful(Condition):
    """Its author has forgotten to return."""

    def holds(self, loss: float, **signals: Any) -> Any:
        self.seen = loss


def test_a_condition_that_cannot_decide_is_refused_before_a_run_begins() -> None:
    for condition in (Undecided(), ~Undecided(), SmoothedDecrease(1) & Undecided()):
        with pytest.raises(SeekingError, match=r"Undecided.*neither decide\(signals\) nor holds\(loss"):
            tiny(None, condition=condition)


def test_a_decision_that_is_not_returned_is_refused() -> None:
    for condition in (Forgetful(), ~Forgetful()):
        with pytest.raises(SeekingError, match="Forgetful has decided None; return true or false"):
            condition.update(1.0)


def test_a_run_without_held_out_data_is_refused_before_it_begins() -> None:
    with pytest.raises(SeekingError, match="held_out:3,1 & always, which measures the loss on held-out training data"):
        tiny(None, dataclasses.replace(TINY, condition="held_out:3 & always"))
    with pytest.raises(SeekingError, match=r"^base_condition is held_out:3,1, which measures the loss on held-out"):
        tiny(None, dataclasses.replace(TINY, base_condition="held_out:3"))
    with pytest.raises(SeekingError, match="the held-out data yield no batch"):
        tiny(None, TINY, held_out=[])


@pytest.mark.parametrize("text", ["held_out:4", "exp3:0.5,4", "held_out:4 | always"])
def test_a_budget_pays_for_the_measurements(text: str) -> None:
    config = dataclasses.replace(TINY, epochs=60, condition=text, budget=1.0, save_every="10m", eval_every=60)
    torch.manual_seed(0)
    with warnings.catch_warnings(action="error", category=RunWarning):
        result = tiny(None, config, held_out=held_out()).fit()
    assert result.cost.report()["of_motivated_alone"] == pytest.approx(1.0, rel=0.02)
    assert result.cost.held_out_samples == 12 * 60


@pytest.mark.parametrize("count", [1, 100])
def test_held_out_images_are_training_images_that_are_not_trained_on(count: int) -> None:
    whole, parted = load(DataConfig()), load(DataConfig(held_out=count))
    assert parted.held_out is not None
    assert (len(parted.held_out), len(parted.train)) == (count, len(whole.train) - count)

    def images(data: Any) -> list[bytes]:
        return sorted(image.numpy().tobytes() for image in data.pixels)

    assert sorted([*images(parted.train), *images(parted.held_out)]) == images(whole.train)
    assert images(parted.test) == images(whole.test)
    assert ("held out for conditions", count) in [(split.use, split.images) for split in parted.splits]
    with pytest.raises(SeekingError, match="held_out is 2000, and digits has 1438 training images"):
        load(DataConfig(held_out=2000))


def test_held_out_images_are_the_same_whether_they_are_kept_encoded(tmp_path: Path) -> None:
    folder = str(image_folder(tmp_path))
    decoded, encoded = (load(DataConfig(data=folder, held_out=2, in_memory=kept)) for kept in (True, False))
    for images, files in ((decoded.held_out, encoded.held_out), (decoded.train, encoded.train)):
        assert images is not None and files is not None
        assert torch.equal(images.labels, files.labels)
        assert torch.equal(images.pixels[torch.arange(len(images))], files.pixels[torch.arange(len(files))])
