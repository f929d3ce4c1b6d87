"""A budget is met by whole runs, whatever takes FLOPs beside the steps."""

import dataclasses
import functools
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import PLAIN
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import Always, Condition, SeekingError, Signals, TrainConfig, Trainer
from seeking.errors import RunWarning

EPOCHS, SAMPLES = 6, 64


def make(config: TrainConfig, batch_size: int = 8, **more: Any) -> Trainer:
    torch.manual_seed(0)
    models = (nn.Sequential(nn.Linear(6, w), nn.BatchNorm1d(w), nn.ReLU(), nn.Linear(w, 3)) for w in (8, 20))
    x = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, x[:, :3].argmax(1))
    loaders = {"train_loader": DataLoader(data, batch_size), "eval_loader": DataLoader(data, 64)}
    return Trainer(*models, **loaders, config=config, **more)


@functools.cache
def ratio() -> float:
    """FLOPs of the base over those of the motivated model."""
    cost = make(PLAIN).run.cost
    return cost.base_flops / cost.motivated_flops


@pytest.mark.slow
@settings(max_examples=10)
@given(
    condition=st.sampled_from(["decrease:2", "never", "always", "random:0.4", "affordable:1,0.8"]),
    on=st.sampled_from(["same", "next"]),
    teach=st.sampled_from([0.0, 0.5]),
    norm=st.sampled_from(["private", "recalibrated"]),
    recalibration_batches=st.sampled_from([1, 20, 100]),
    eval_every=st.integers(1, 5),
    accumulate=st.sampled_from([1, 2]),
    batch_size=st.sampled_from([2, 4]),
    part=st.floats(0.1, 0.9),
)
def test_a_budget_is_met_but_for_a_step(part: float, batch_size: int, **options: Any) -> None:
    config = dataclasses.replace(PLAIN, epochs=EPOCHS, lr=0.01, **options)
    least = ratio()
    if config.norm == "recalibrated":
        batches = min(config.recalibration_batches, -(-SAMPLES // batch_size))
        cost = make(PLAIN).run.cost
        forward = cost.motivated_forward_flops / cost.motivated_flops
        least += -(-EPOCHS // config.eval_every) * batches * batch_size * forward / (EPOCHS * SAMPLES)
    budget = round(least + part, 3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", RunWarning)  # Of budgets that are missed.
        trainer = make(dataclasses.replace(config, budget=budget), batch_size)
        trainer.fit()
    spent = trainer.run.cost.report()["of_motivated_alone"]
    assert budget - 1.01 / trainer.progress.step <= spent <= budget + 1e-6, "but for a step, and never exceeded"
    missed = [warning for warning in told if "budget" in str(warning.message)]
    assert bool(missed) == (spent / budget < 0.98), "more than 2 % is told"


@pytest.mark.parametrize("base_condition", ["before:0.5", "every:4 | after:0.77", "~affordable:0,0.77 | after:0.77"])
def test_a_budget_is_met_whatever_the_schedule_of_the_base(base_condition: str) -> None:
    config = dataclasses.replace(PLAIN, epochs=EPOCHS, lr=0.01, base_condition=base_condition, budget=0.9)
    trainer = make(config)
    trainer.fit()
    assert trainer.run.cost.report()["of_motivated_alone"] == pytest.approx(0.9, abs=1.01 / trainer.progress.step)


def test_budgets_that_recalibrations_leave_nothing_of_are_refused() -> None:
    config = dataclasses.replace(PLAIN, epochs=EPOCHS, budget=ratio() + 0.1, norm="recalibrated")
    with pytest.raises(SeekingError, match=r"costs .* of training the motivated model alone with its recalibrations"):
        make(config)
    make(dataclasses.replace(config, recalibration_batches=1, eval_every=6))
    make(dataclasses.replace(config, norm="private"))


@pytest.mark.parametrize("rests", ["every:4", "before:0.4 | every:3", "random:0.3", "~next(every:2)", "never"])
def test_more_than_both_models_can_spend_is_told_of_at_the_start_if_the_base_rests(rests: str) -> None:
    config = dataclasses.replace(PLAIN, epochs=EPOCHS, lr=0.01, base_condition=rests, condition="always")
    with warnings.catch_warnings(action="ignore"):  # Of a base that has taken no step.
        whole = make(config)
        whole.fit()
        most = whole.run.cost.report()["of_motivated_alone"]
        with pytest.warns(RunWarning, match=f"the motivated model on every batch, cost {most:.2f}"):
            make(dataclasses.replace(config, budget=1.03 * most))
        met = make(dataclasses.replace(config, budget=0.99 * most))
        met.fit()
    assert met.run.cost.report()["of_motivated_alone"] == pytest.approx(0.99 * most, abs=1.01 / met.progress.step)


def test_a_budget_that_recipes_cannot_spend_or_pay_is_told_of_at_the_start() -> None:
    """Their base rests as soon as the budget pays for the motivated model."""
    rests = dataclasses.replace(
        PLAIN, epochs=EPOCHS, condition="affordable:0.25,0.77", base_condition="~affordable:0.25,0.77 | every:4"
    )
    with pytest.raises(SeekingError, match="give a greater budget, or another base_condition"):
        make(dataclasses.replace(rests, budget=ratio() - 0.1))
    with pytest.warns(RunWarning, match="give a smaller budget"):
        make(dataclasses.replace(rests, budget=1.3))
    with warnings.catch_warnings(action="error", category=RunWarning):
        make(dataclasses.replace(rests, budget=1.05))
        make(dataclasses.replace(rests, base_condition="decrease:1", budget=1.3))  # Nobody knows when that holds.


class Spender(Condition):
    """A condition of one's own that cannot do without a budget."""

    needs_budget = True

    def decide(self, signals: Signals) -> bool:
        assert signals.flops_planned is not None
        return True


@pytest.mark.parametrize("inside", [lambda own: own, lambda own: ~own, lambda own: Always() | ~own])
def test_a_condition_that_needs_a_budget_is_refused_without_one(inside: Callable[[Condition], Condition]) -> None:
    with pytest.raises(
        SeekingError, match=r"^condition is .*, which spends a budget, and the run has none; set budget"
    ):
        make(PLAIN, condition=inside(Spender()))


def test_without_a_budget_a_condition_that_spends_one_holds_at_once() -> None:
    config = dataclasses.replace(PLAIN, base_condition="next(affordable:0,1)", condition="affordable:0.25,0.77")
    trainer = make(config)
    trainer.fit()
    assert trainer.run.cost.motivated_batches == trainer.progress.step
    assert trainer.run.cost.samples < trainer.run.cost.run_samples


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, "held on no batch of 48; only what it shares with the base is trained; train longer, or with"),
        ({"finish": "private"}, "no more of it is trained than what it shared with the base until finish_at 0.77"),
        ({"base_condition": "never"}, "nothing of it is trained"),
    ],
)
def test_what_of_a_motivated_model_that_never_stepped_is_trained(options: dict[str, Any], trained: str) -> None:
    with pytest.warns(RunWarning, match=f"the motivated model has not taken a step: condition after:99 .*{trained}"):
        make(dataclasses.replace(PLAIN, epochs=EPOCHS, condition="after:99", **options)).fit()


def test_a_budget_that_pays_for_no_motivated_step_is_named() -> None:
    budget = ratio() * 1.01
    wanted = f"condition affordable:0,0.5 held on no batch of 48 within the budget of {budget}; .*with a greater budget"
    with pytest.warns(RunWarning, match=re.escape(wanted).replace(r"\.\*", ".*")):
        make(dataclasses.replace(PLAIN, epochs=EPOCHS, condition="affordable:0,0.5", budget=budget)).fit()


@pytest.mark.parametrize(("condition", "why"), [("after:99", ""), ("decrease:1", "; a condition on the loss never .*")])
def test_only_a_base_that_waits_for_a_loss_is_said_to_see_none(condition: str, why: str) -> None:
    text = f"the base has not taken a step: base_condition {condition} held on no batch of 48{why}$"
    with pytest.warns(RunWarning, match=text):
        make(dataclasses.replace(PLAIN, epochs=EPOCHS, base_condition=condition, condition="always")).fit()
