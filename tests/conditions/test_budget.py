"""A budget of FLOPs is spent, and not more."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeking import SeekingError, Signals
from seeking.conditions import Affordable, Condition, Every, Never, OnePass, WithinBudget, parse
from seeking.conditions.forecast import Forecast

STEPS = 200

shares = st.floats(0.05, 0.95)

ENDS = ("never", "always")
"""Conditions with which a run costs least and most."""


def spent(
    condition: Condition,
    base_condition: Condition,
    base_flops: float,
    budget: float,
    saved: float = 0.0,
    until: int = STEPS,
) -> tuple[float, list[bool]]:
    """What a run costs, over the motivated model alone, and on which batches the motivated model steps.

    Before a batch, ``until``, one pass saves FLOPs where both step.
    """
    total, decisions = 0.0, []
    forecast = Forecast(base_condition)
    for step in range(STEPS):
        signals = Signals(
            loss=1.0 / (1 + step % 7),
            step=step,
            steps=STEPS,
            flops_spent=total,
            flops_planned=budget * STEPS,
            base_flops=base_flops,
            motivated_flops=1.0,
            one_pass=OnePass(flops=saved, until=until) if step < until else None,
        )
        stepped = base_condition.update(signals.loss, signals)
        total += base_flops * stepped
        left = forecast.left(step, STEPS, None)
        after = dataclasses.replace(signals, flops_spent=total, base_stepped=stepped, base_steps_left=left)
        if step < until:
            joint = None if left is None else left - (forecast.left(until - 1, STEPS, None) or 0)
            one_pass = OnePass(flops=saved, until=until, now=stepped, base_steps=joint)
            after = dataclasses.replace(after, motivated_flops=1.0 - saved * stepped, one_pass=one_pass)
        decisions.append(condition.update(signals.loss, after))
        total += decisions[-1] * (1.0 - saved * (stepped and step < until))
    return total / STEPS, decisions


@settings(max_examples=30)
@given(
    inner=st.sampled_from(["never", "always", "every:3", "decrease:2", "random:0.5", "after:0.3", "before:0.4"]),
    base_flops=shares,
    part=st.floats(0, 1),
)
def test_a_budget_is_met_whatever_the_condition(inner: str, base_flops: float, part: float) -> None:
    budget = base_flops + part
    cost, _ = spent(WithinBudget(parse(inner)), parse("always"), base_flops, budget)
    assert budget - 1.001 / STEPS <= cost <= budget + 1e-6


@settings(max_examples=30)
@given(
    inner=st.sampled_from(["never", "always", "every:3", "decrease:2", "random:0.5", "after:0.3", "before:0.4"]),
    base=st.sampled_from(
        [
            ("every:2", 1 / 2),
            ("~every:3", 2 / 3),
            ("never", 0.0),
            ("before:0.5", 1 / 2),
            ("after:0.6", 2 / 5),
            ("before:0.2 & ~every:2 | after:0.9", 1 / 5),
        ]
    ),
    base_flops=shares,
    part=st.floats(0.1, 0.9),
)
def test_a_budget_is_met_where_the_base_rests(
    inner: str, base: tuple[str, float], base_flops: float, part: float
) -> None:
    """It is spent on the motivated model; the last steps of the base are paid for all the same."""
    budget = base[1] * base_flops + part
    cost, _ = spent(WithinBudget(parse(inner)), parse(base[0]), base_flops, budget)
    assert budget - 1.001 / STEPS <= cost <= budget + 1e-6


@settings(max_examples=30)
@given(
    inner=st.sampled_from(["never", "every:3", "decrease:2", "random:0.5", "after:0.5", "before:0.4"]),
    base_flops=shares,
    part=st.floats(0, 0.9),
    finish=shares,
)
def test_a_budget_is_met_where_the_base_rests_as_soon_as_it_pays_for_the_rest(
    inner: str, base_flops: float, part: float, finish: float
) -> None:
    """Then it is known how often the base will step, whatever the motivated model's condition is."""
    budget = base_flops + part * (1 - base_flops)
    cost, _ = spent(WithinBudget(parse(inner)), parse(f"~affordable:0,{finish} | after:{finish}"), base_flops, budget)
    assert budget - 3 / STEPS <= cost <= budget + 1e-6


@settings(max_examples=30)
@given(
    base=st.sampled_from(["always", "every:4", "before:0.3", "every:4 | after:{finish}"]),
    base_flops=shares,
    saved=st.floats(0.1, 0.9),
    part=st.floats(0, 1),
    finish=shares,
    tied=st.booleans(),
)
def test_a_budget_is_met_where_one_pass_saves_flops(
    base: str, base_flops: float, saved: float, part: float, finish: float, tied: bool
) -> None:
    """Up to the end or, with a private finish, until the models part."""
    base, until = base.format(finish=finish), STEPS if tied else round(finish * STEPS)
    least, most = (spent(parse(other), parse(base), base_flops, 9.0, saved * base_flops, until)[0] for other in ENDS)
    budget = least + part * (most - least)
    cost, _ = spent(WithinBudget(parse("never")), parse(base), base_flops, budget, saved * base_flops, until)
    assert budget - 3 / STEPS <= cost <= budget + 1e-6


@settings(max_examples=30)
@given(base_flops=shares, saved=shares, part=st.floats(0.1, 1), every=st.sampled_from([0, 4]), finish=shares)
def test_the_motivated_model_steps_to_the_end_where_one_pass_saves_flops(
    base_flops: float, saved: float, part: float, every: int, finish: float
) -> None:
    """Of a private finish, in which nothing is saved."""
    joined = f"affordable:{1 / every if every else 0},{finish}"
    base_condition = f"~{joined} {f'| every:{every} ' if every else ''}| after:{finish}"
    budget = base_flops + part * (1 - base_flops) * 0.9
    flops = base_flops, budget, saved * base_flops, round(finish * STEPS)
    cost, decisions = spent(WithinBudget(parse(joined)), parse(base_condition), *flops)
    assert cost == pytest.approx(budget, abs=3 / STEPS)
    first = decisions.index(True)
    assert sum(decisions[first:]) >= len(decisions[first:]) - 3


def test_within_its_budget_a_condition_decides() -> None:
    _, decisions = spent(WithinBudget(Every(2)), parse("always"), 0.5, 1.0)
    _, expected = spent(Every(2), parse("always"), 0.5, 1.0)
    assert decisions == expected


@settings(max_examples=30)
@given(base_flops=shares, part=st.floats(0, 1), every=st.integers(2, 6), finish=shares)
def test_the_motivated_model_joins_when_the_rest_is_affordable(
    base_flops: float, part: float, every: int, finish: float
) -> None:
    joined = f"affordable:{1 / every},{finish}"
    base_condition = parse(f"~{joined} | every:{every} | after:{finish}")
    budget = base_flops + part * (1 - base_flops) * 0.9
    cost, decisions = spent(WithinBudget(parse(joined)), base_condition, base_flops, budget)
    assert cost == pytest.approx(budget, abs=3 / STEPS)
    assert decisions[:-2] == sorted(decisions[:-2]), "from one batch on it steps on every batch"


def test_without_a_budget_everything_is_affordable() -> None:
    assert all(Affordable(0.25, 0.77).update(1.0) for _ in range(3))
    with pytest.raises(SeekingError, match="set budget"):
        WithinBudget(Never()).update(1.0)


@given(share=st.floats(0.01, 0.99))
def test_shares_of_a_run(share: float) -> None:
    for name in ("after", "before"):
        condition = parse(f"{name}:{share}")
        assert str(parse(str(condition))) == str(condition)
        held = [condition.update(1.0, Signals(loss=1.0, steps=STEPS)) for _ in range(STEPS)]
        assert held == [(step >= round(share * STEPS)) == (name == "after") for step in range(STEPS)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("after:1.5", "step is 1.5; it is a whole number of batches, or a share of the run below 1"),
        ("before:-1", "step is -1; it is a whole number of batches, or a share"),
        ("affordable:2,0.5", "affordable: "),
        ("affordable:0.5", "affordable: takes 0 or 2 numbers"),
    ],
)
def test_what_is_no_share_is_refused(text: str, message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        parse(text)


def test_a_share_of_a_run_of_unknown_length_is_refused_in_words() -> None:
    for text in ("after:0.5", "before:0.5"):
        with pytest.raises(SeekingError, match="do not include its number of steps"):
            parse(text).update(1.0)
