"""A private finish that begins with the base's first step, and a budget that knows when the base steps."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import CONFIG, assert_equal, batches, run, steps, two_models, whole_and_resumed

from seeking import TrainConfig, Trainer
from seeking.errors import RunWarning

BEST = TrainConfig.from_recipe("best", epochs=4, lr=CONFIG.lr, verify=False)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(start=st.floats(0.05, 0.95), budget=st.sampled_from([None, 0.9]))
def test_where_the_base_starts_is_one_option(start: float, budget: float | None) -> None:
    """The finish and the budget follow it, as if each was told."""
    one = dataclasses.replace(BEST, base_condition=f"after:{start}", budget=budget)
    told = dataclasses.replace(one, condition=f"affordable:0,{start}", finish_at=start)
    (trainer, result), (expected_trainer, expected) = run(one), run(told)
    if budget is None:
        assert_equal(trainer, expected_trainer)
    for models in ("loss", "motivated_loss"):
        stepped, expected_stepped = ([models in row for row in steps(each)] for each in (result, expected))
        assert sum(a != b for a, b in zip(stepped, expected_stepped, strict=True)) <= (budget is not None)
    assert trainer.pair and trainer.pair.separated == any("loss" in row for row in steps(result))


@pytest.mark.parametrize("base_condition", ["every:5", "after:0.5", "decrease:1 | after:7", "never"])
def test_models_share_weights_until_the_base_steps(base_condition: str) -> None:
    separated: list[bool] = []
    stepped: list[bool] = []

    def listen(row: Any) -> None:
        if row["kind"] == "step":
            separated.append(trainer.pair is not None and trainer.pair.separated)
            stepped.append("loss" in row)

    config = dataclasses.replace(CONFIG, base_condition=base_condition, condition="always", shared_from="motivated")
    config = dataclasses.replace(config, finish="private", finish_at=None)
    trainer = Trainer(*two_models(), **batches(), config=config, listeners=[listen])
    trainer.fit()
    assert separated == [any(stepped[: step + 1]) for step in range(len(stepped))]
    assert any(stepped) == (base_condition != "never")


@pytest.mark.parametrize("at", [[1, 13, 20], [14, 15], [4]])
def test_it_resumes_bit_for_bit(at: list[int], tmp_path: Path) -> None:
    config = dataclasses.replace(BEST, save_every="1", budget=0.95)

    def make(**more: Any) -> Trainer:
        return Trainer(*two_models(), **batches(), config=config, **more)

    whole_and_resumed(make, tmp_path / "run", at)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=st.sampled_from(["after:0.5", "every:4", "before:0.3", "random:0.3"]), part=st.floats(0.2, 0.8))
def test_a_budget_is_met_by_the_schedule_of_the_base(base: str, part: float) -> None:
    config = dataclasses.replace(CONFIG, epochs=8, base_condition=base, condition="affordable", budget=0.5 + part / 2)
    trainer, result = run(config)
    assert trainer.run.cost.report()["of_motivated_alone"] == pytest.approx(
        config.budget, abs=1.5 / trainer.progress.step
    )
    joined = ["motivated_loss" in row for row in steps(result)]
    if base != "random:0.3":
        assert joined[joined.index(True) : -2].count(False) == 0, "from one batch on it steps on every batch"


def test_what_it_takes_away_is_told(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.warns(RunWarning, match="update is joint, .* a private finish with finish_at None begins with"):
        run(dataclasses.replace(CONFIG, base_condition="every:2", update="joint", finish="private", finish_at=None))
    recwarn.clear()
    run(dataclasses.replace(BEST, finish="tied"))
    assert not [warning for warning in recwarn if "finish_at" in str(warning.message)]
