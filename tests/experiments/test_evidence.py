"""Evidence about a condition, intervals and curves from the records of runs."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import batches, two_models
from scipy import stats
from small_recipes import PLAIN

from seeking import Trainer
from seeking.conditions import parse
from seeking.experiments.results import curve, estimate, evidence, first_reaching, mean_curve, mean_evidence
from seeking.report import experiment
from seeking.report.metric import ACCURACY

pytestmark = pytest.mark.slow


def step(loss: float, motivated: bool = False) -> dict[str, Any]:
    return {"kind": "step", "loss": loss, **({"motivated_loss": 0.0} if motivated else {})}


def steps(losses: list[float], condition: str) -> list[dict[str, Any]]:
    decide = parse(condition)
    return [step(loss, decide.update(loss)) for loss in losses]


@given(st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=4)
def test_losses_without_a_trend_hold_as_often_as_their_shuffles(n: int, seed: int) -> None:
    losses = torch.rand(900, generator=torch.Generator().manual_seed(seed)).tolist()
    stages = evidence(steps(losses, f"decrease:{n}"), f"decrease:{n}", 0)
    for stage in stages.values():
        assert stage["shuffled"] == pytest.approx(1 / math.factorial(n + 1), abs=0.02)
        assert abs(stage["rate"] - stage["shuffled"]) < 6 * stage["deviation"]
        assert n == 1 or stage["loss"] < 1  # By construction: what has fallen is low.


def test_the_mean_of_several_seeds_is_less_noisy() -> None:
    losses = torch.rand(300, generator=torch.Generator().manual_seed(1)).tolist()
    single = evidence(steps(losses, "decrease:1"), "decrease:1", 0)
    mean = mean_evidence([single] * 3)
    for stage in single:
        assert mean[stage]["deviation"] == pytest.approx(single[stage]["deviation"] / 3**0.5)
        assert all(mean[stage][name] == pytest.approx(single[stage][name]) for name in ("rate", "shuffled", "loss"))
    assert mean_evidence([]) == {}


def test_a_trend_is_seen() -> None:
    falling = [10 - 0.001 * number for number in range(300)]
    stage = evidence(steps(falling, "decrease:2"), "decrease:2", 0)["midway"]
    assert stage["rate"] == 1
    assert stage["shuffled"] < 0.3
    zigzag = [10 - 0.001 * number + 0.01 * (number % 2) for number in range(300)]
    assert evidence(steps(zigzag, "decrease:2"), "decrease:2", 0)["late"]["rate"] == 0


def test_a_condition_on_what_is_not_recorded_is_not_compared_with_chance() -> None:
    rows = [{"kind": "step", "loss": 1.0, "grad_norm": norm, "motivated_loss": 1.0} for norm in (3.0, 1.0, 2.0) * 40]
    assert evidence(rows, "grad_norm:0", 0)["late"]["shuffled"] == pytest.approx(0.5, abs=0.1)
    for unknown in ("held_out:2 & grad_norm:0", "affordable:0,0.5"):
        stages = evidence(rows, unknown, 0)
        assert all((stage["rate"], stage["shuffled"]) == (1, None) for stage in stages.values())
        row = {"arm": unknown, "evidence": mean_evidence([stages])}
        assert "| 1.000 | 1.000 |" in experiment.evidence([row])


@pytest.mark.parametrize("on", ["same", "next"])
def test_the_evidence_is_of_the_batches_that_were_motivated(on: Any) -> None:
    config = dataclasses.replace(PLAIN, epochs=3, condition="decrease:1 | random:0.2", seed=3, on=on)
    result = Trainer(*two_models(), **batches(), config=config).fit()
    stage = evidence(result.history, config.condition, config.seed)["late"]
    rows = [row for row in result.history if row["kind"] == "step"][12:]
    motivated = [row["loss"] for row in rows if "motivated_loss" in row]
    assert stage["rate"] == len(motivated) / len(rows)
    mean = sum(row["loss"] for row in rows) / len(rows)
    assert stage["loss"] == pytest.approx(sum(motivated) / len(motivated) / mean)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8).filter(lambda values: max(values) - min(values) > 1e-3))
def test_intervals_are_students(values: list[float]) -> None:
    estimated = estimate(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimated["mean"] - estimated["interval"] == pytest.approx(low)
    assert estimated["mean"] + estimated["interval"] == pytest.approx(high)


def test_curves_count_what_went_before_and_tell_when_an_accuracy_is_reached() -> None:
    rows = [step(1.0), {"kind": "eval", "epoch": 1, "flops": 90.0, "base": {"accuracy": 0.2}}]
    rows += [{"kind": "eval", "epoch": 2, "flops": 180.0, "base": {"accuracy": 0.6}}]
    points = curve(rows, "base", {"epochs": 3, "flops": 100.0}, ACCURACY)
    assert points == [[4, 190.0, 0.2], [5, 280.0, 0.6]]
    assert first_reaching(points, 0.55, ACCURACY) == (5, 280.0)
    assert first_reaching(points, 0.7, ACCURACY) is None


def test_a_mean_curve_is_of_the_epochs_that_all_seeds_have() -> None:
    often, seldom = [[n, 90.0 * n, 0.1 * n] for n in (1, 2, 3)], [[n, 100.0 * n, 0.2 * n] for n in (2, 3)]
    points = mean_curve([often, seldom])
    assert [(point["flops"], point["values"]) for point in points] == [(190.0, [0.2, 0.4]), (285.0, [0.1 * 3, 0.2 * 3])]
    assert [point["values"] for point in mean_curve([often])] == [[accuracy] for _, _, accuracy in often]
