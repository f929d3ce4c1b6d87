"""Each model has a condition: who steps when, shared or separate to the end."""

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import CONFIG, assert_equal, batches, interrupted, run, steps, two_models, whole_and_resumed
from torch import nn

from seeking import Always, Condition, RunError, SeekingError, Signals, TrainConfig, Trainer, parse_condition
from seeking.algorithms import Scheduled, motivated
from seeking.choices import Student
from seeking.cli import main
from seeking.errors import RunWarning
from seeking.options import recipe_options
from seeking.weights_map import tensors

BEST: dict[str, Any] = {
    "base_condition": "before:0.25 | every:3 | after:0.75",
    "condition": "after:0.25",
    "schedule": "wsd",
    "finish": "private",
    "finish_at": 0.75,
}


@pytest.mark.parametrize("condition", ["decrease:1", "every:2 | random:0.5"])
def test_a_base_that_always_steps_is_the_papers_algorithm(condition: str) -> None:
    config = dataclasses.replace(CONFIG, condition=condition)
    assert_equal(run(config)[0], run(config, algorithm=Scheduled(Always()))[0])


@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(base=st.sampled_from(["every:2", "before:0.4", "~every:3", "after:5"]))
def test_each_model_steps_where_its_condition_holds(base: str) -> None:
    config = dataclasses.replace(CONFIG, base_condition=base, condition=f"~({base})")
    trainer, result = run(config)
    expected = parse_condition(base)
    for row in steps(result):
        signals = {"step": row["step"], "steps": len(steps(result))}
        assert ("loss" in row) == expected.update(1.0, **signals) != ("motivated_loss" in row)
    cost = trainer.run.cost
    assert cost.run_samples == cost.samples + cost.motivated_samples


def test_by_the_recipe_best_the_motivated_model_is_trained_as_if_alone() -> None:
    config = dataclasses.replace(CONFIG, **recipe_options("best"))
    trainer = Trainer(*two_models(), **batches(), config=config)
    trainer.fit()
    alone = Trainer(None, two_models()[1], **batches(), config=config)
    alone.fit()
    models = trainer.learners["motivated"].module, alone.learners["motivated"].module
    assert all(map(torch.equal, tensors(models[0]).values(), tensors(models[1]).values()))


def test_options_of_a_recipe_can_be_overridden_in_python(tmp_path: Path) -> None:
    for name in ("paper", "best", "base-first"):
        config = TrainConfig.from_recipe(name)
        assert config == TrainConfig(**recipe_options(name))
        assert TrainConfig.from_recipe(name, epochs=3) == dataclasses.replace(config, epochs=3)
    assert TrainConfig.from_recipe("best", finish="tied").finish == "tied"
    mine = tmp_path / "mine.yaml"
    mine.write_text("base-condition: after:0.5\nlr: 1e-3\n", encoding="utf-8")
    assert TrainConfig.from_recipe(mine) == TrainConfig(base_condition="after:0.5", lr=0.001)
    mine.write_text("motivated: resnet20\nbase: resnet8\n", encoding="utf-8")
    with pytest.raises(SeekingError, match="has the options base, motivated, which TrainConfig has not"):
        TrainConfig.from_recipe(str(mine))


@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(share=st.floats(0.05, 0.95))
def test_a_private_finish_begins_at_its_share_of_the_run(share: float) -> None:
    separated = []

    def listen(row: Mapping[str, Any]) -> None:
        if row["kind"] == "step":
            separated.append(trainer.pair is not None and trainer.pair.separated)

    config = dataclasses.replace(CONFIG, epochs=1, finish="private", finish_at=share, condition="every:2")
    trainer = Trainer(*two_models(), **batches(), config=config, listeners=[listen])
    trainer.fit()
    assert separated == [step >= round(share * len(separated)) for step in range(len(separated))]


@pytest.mark.parametrize("at", [[1, 5, 10], [8, 9], [4]])
def test_a_private_finish_resumes_bit_for_bit(at: list[int], tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, save_every="1", **BEST)

    def make(**more: Any) -> Trainer:
        return Trainer(*two_models(), **batches(), config=config, **more)

    whole_and_resumed(make, tmp_path / "run", at)


def test_a_private_finish_separates_the_models_and_a_tied_one_does_not() -> None:
    for finish in ("tied", "private"):
        trainer, _ = run(dataclasses.replace(CONFIG, **{**BEST, "finish": finish}))
        assert trainer.pair
        assert trainer.pair.separated == (finish == "private")
        base, motivated = (learner.module for learner in trainer.learners.values())
        with trainer.run.synced("motivated"):
            inside = trainer.pair.map.extract(tensors(motivated))
            shared = [torch.equal(parameter, inside[name]) for name, parameter in base.named_parameters()]
        assert all(shared) == (finish == "tied")
        assert any(shared) == (finish == "tied")


@pytest.mark.parametrize(
    ("accumulate", "options"),
    [
        (1, {"budget": 0.7, "condition": "decrease:1"}),
        (2, {"budget": 0.8, **BEST, "condition": "affordable:0.33,0.75"}),
    ],
)
def test_a_budget_is_met_after_a_resume_as_well(accumulate: int, options: dict[str, Any], tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=12, accumulate=accumulate, **options)

    def make(**more: Any) -> Trainer:
        return Trainer(*two_models(), **batches(), config=config, **more)

    trainer = interrupted(make, tmp_path / "run", [5, 20])
    one_step = 1 / trainer.progress.step
    assert trainer.run.cost.report()["of_motivated_alone"] == pytest.approx(options["budget"], abs=one_step)
    assert trainer.algorithm is motivated or trainer.pair.separated


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0.01}, "budget is 0.01, but a base that steps on every batch costs 0."),
        ({"budget": 3.0}, "budget is 3.0, but steps of both models on every batch cost 1."),
        ({"base_condition": "evry:2"}, "unknown condition 'evry'; did you mean every"),
        ({"finish": "private", "optimizer_state": "shared"}, "finish private cannot be combined with optimizer_state"),
        ({"teach": 2.0}, "teach is 2.0"),
        ({"teach": 0.5, "condition": "never | agreement:0"}, "needs the gradient of the base's step"),
        ({"one_pass": True, "update": "joint", "condition": "agreement:0"}, "with one_pass it decides before"),
        ({"finish_at": 1.0}, "finish_at is 1.0; it is a share"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((SeekingError, ValueError), match=message):
        run(dataclasses.replace(CONFIG, **options))


@pytest.mark.parametrize(
    ("changed", "serves"),
    [
        ({"finish_at": 0.5}, {"finish": "private"}),
        ({"student": "motivated"}, {"teach": 0.5}),
        ({"base_weight": 0.3}, {"update": "joint"}),
        ({"rewarm_share": 0.2}, {"rewarm": 1.3}),
        ({"decay": 0.5}, {"schedule": "wsd"}),
    ],
)
def test_an_option_that_has_no_effect_is_told_of(changed: dict[str, Any], serves: dict[str, Any]) -> None:
    (name,), (other,) = changed, serves
    with pytest.warns(RunWarning, match=f"{name} is .* no effect; set {other}"):
        run(dataclasses.replace(CONFIG, **changed, epochs=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        run(dataclasses.replace(CONFIG, **changed, **serves, epochs=1))


def test_options_without_effect_by_who_steps_when_are_told_of() -> None:
    apart = {"base_condition": "after:0.5", "condition": "before:0.5"}
    with pytest.warns(RunWarning, match="teach is 0.5, which has no effect: base_condition after:0.5 and condition"):
        run(dataclasses.replace(CONFIG, **apart, teach=0.5))
    with pytest.warns(RunWarning, match="inherit, which has no effect: .*first step .step 0 of the run"):
        run(dataclasses.replace(CONFIG, **apart, optimizer_state="inherit"))
    held_out = batches()["eval_loader"]
    with pytest.warns(RunWarning, match="held_out .* no effect: neither condition .always; decrease:1. measures"):
        run(held_out=held_out)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        run(dataclasses.replace(CONFIG, condition="held_out:2"), held_out=held_out)
        run(dataclasses.replace(CONFIG, base_condition="held_out:2 | always"), held_out=held_out)
        run(dataclasses.replace(CONFIG, condition="after:0.5", optimizer_state="inherit", teach=0.5))


def test_a_base_that_starts_from_old_weights_is_told_of() -> None:
    late = dataclasses.replace(CONFIG, base_condition="after:0.5", condition="always", finish="private")
    with pytest.warns(RunWarning, match="its first step later than finish_at 0.3: it starts from what it shared there"):
        run(dataclasses.replace(late, finish_at=0.3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        for finish_at in (0.49, 0.5, 0.7):
            run(dataclasses.replace(late, finish_at=finish_at))
        run(dataclasses.replace(late, base_condition="before:0.3", finish_at=0.3))


@pytest.mark.parametrize("batch_size", [20, 31])
def test_a_budget_counts_samples(batch_size: int) -> None:
    """The last batch of 48 images is smaller: of 8 and of 17."""
    config = dataclasses.replace(CONFIG, epochs=40, budget=0.8, condition="random:0.3")
    trainer = Trainer(*two_models(), **batches(batch_size=batch_size), config=config)
    trainer.fit()
    assert trainer.run.cost.report()["of_motivated_alone"] == pytest.approx(0.8, abs=1 / trainer.progress.step)


def test_a_budget_that_is_missed_and_models_that_never_step_are_told_of() -> None:
    config = dataclasses.replace(CONFIG, budget=0.2, base_condition="decrease:9 | always")
    with pytest.warns(RunWarning, match="and its budget was 0.2"):
        run(config)
    with pytest.warns(RunWarning, match="the base has not taken a step"):
        run(dataclasses.replace(CONFIG, base_condition="decrease:1"))
    with pytest.warns(RunWarning, match="the motivated model has not taken a step: condition decrease:99 held"):
        run(dataclasses.replace(CONFIG, condition="decrease:99"))


def test_a_run_in_which_the_motivated_model_is_not_to_step_has_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        run(dataclasses.replace(CONFIG, condition="never"))


def test_random_conditions_of_both_models_draw_independently() -> None:
    _, result = run(dataclasses.replace(CONFIG, epochs=5, base_condition="random:0.5", condition="random:0.5"))
    both = [("loss" in row, "motivated_loss" in row) for row in steps(result)]
    assert len({*both}) > 2


def test_options_that_a_custom_algorithm_decides_are_refused() -> None:
    for options in ({"finish": "private"}, {"base_condition": "never"}):
        with pytest.raises(SeekingError, match="which the algorithm that was given decides itself"):
            run(dataclasses.replace(CONFIG, **options), algorithm=motivated)


class Gradients(Condition):
    """Remembers whether it has got gradients."""

    needs_gradients = True  # type: ignore[assignment]

    def __init__(self) -> None:
        self.got: list[bool] = []

    def decide(self, signals: Signals) -> bool:
        self.got.append(signals.gradients is not None)
        return False


def test_conditions_get_the_gradients_of_a_base_that_steps() -> None:
    condition = Gradients()
    run(dataclasses.replace(CONFIG, base_condition="every:2"), condition=condition)
    assert condition.got == [number % 2 == 1 for number in range(len(condition.got))]


class Stepped(Condition):
    """Keeps the losses of steps of the base, as it sees them."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float | None] = []

    def decide(self, signals: Signals) -> bool:
        if signals.base_stepped:
            self.losses.append(signals.loss)
            self.norms.append(signals.grad_norm)
        return signals.step is not None and signals.step % 2 == 0


@pytest.mark.parametrize("base", ["always", "every:2 | before:0.3"])
@pytest.mark.parametrize("update", ["separate", "joint"])
@pytest.mark.parametrize("taught", [{}, *({"teach": 0.5, "student": each} for each in get_args(Student))], ids=str)
def test_a_condition_sees_every_step_of_the_base_once(base: str, update: str, taught: dict[str, Any]) -> None:
    condition = Stepped()
    config = dataclasses.replace(CONFIG, base_condition=base, update=update, **taught)
    _, result = run(config, condition=condition)
    rows = [row for row in steps(result) if "loss" in row]
    seen = len(condition.losses)
    assert 0 <= len(rows) - seen <= 1  # Nothing decides after the last step, if it decides before.
    assert condition.losses == [row["loss"] for row in rows[:seen]]
    assert condition.norms == [row["grad_norm"] for row in rows[:seen]]


def test_a_condition_of_the_base_sees_every_step_of_the_base_once() -> None:
    condition = Stepped()
    trainer = Trainer(*two_models(), **batches(), config=CONFIG, algorithm=Scheduled(condition))
    losses = [row["loss"] for row in steps(trainer.fit()) if "loss" in row]
    assert condition.losses == losses[: len(condition.losses)] and len(losses) - len(condition.losses) <= 1


@pytest.mark.parametrize("condition", ["smoothed:1,0.5", "below_trend:0,0.5", "grad_norm:0,0.5"])
@pytest.mark.parametrize("options", [{"teach": 0.5}, {"update": "joint"}, {"teach": 0.5, "update": "joint"}], ids=str)
def test_conditions_hold_wherever_the_base_steps(condition: str, options: dict[str, Any]) -> None:
    _, result = run(dataclasses.replace(CONFIG, condition=condition, **options))
    assert 0 < result.cost.motivated_batches < result.cost.batches


def test_a_loss_that_is_not_finite_motivates_nobody() -> None:
    poisoned = False

    def loss_fn(model: nn.Module, batch: Any) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(model(batch[0]), batch[1])
        return loss * float("nan") if poisoned else loss

    config = dataclasses.replace(CONFIG, condition="~never", on_nonfinite="skip", finish="private")
    trainer = Trainer(*two_models(), **batches(), config=config, loss_fn=loss_fn)
    poisoned = True
    trainer.begin()
    with pytest.warns(RunWarning), contextlib.suppress(RunError):
        trainer.train_batches()
    assert not trainer.run.cost.motivated_samples


@pytest.mark.parametrize("options", [{"finish": "x"}, {"schedule": "wdd"}, {"norm": "private "}])
def test_words_that_an_option_does_not_know_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SeekingError, match="unknown value of"):
        TrainConfig(**options)


@pytest.mark.slow
def test_recipes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--epochs", "4", "--max-train-samples", "256", "--base-kwargs", "width=4", "--motivated-kwargs", "width=4"]
    for recipe in ("paper", "best", "base-first"):
        assert main(["train", "--recipe", recipe, *small, "--output", str(tmp_path / recipe)]) == 0
    assert main(["train", "--recipe", "bset", *small]) == 2
    assert "unknown recipe 'bset'; did you mean best" in capsys.readouterr().err


BAD = ["decrese:2", "decrease:0", "every:2 &", "no.module.Class", "always" + " | always" * 200, "agreement:0 | every:2"]


@pytest.mark.parametrize("option", ["condition", "base_condition"])
@pytest.mark.parametrize("text", BAD)
def test_a_bad_condition_is_reported_as_the_option_that_has_it(
    text: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"one_pass": True, "update": "joint"} if option == "condition" else {}
    with pytest.raises(SeekingError, match=rf"^{option}( is|:) "):
        Trainer(*two_models(), **batches(), config=dataclasses.replace(CONFIG, **options, **{option: text}))
    flag = f"--{option.replace('_', '-')}"
    switches = ["--one-pass", "--update", "joint"] if options else []
    assert main(["train", *switches, flag, text]) == 2
    assert re.match(rf"seeking: {flag}( is|:) ", capsys.readouterr().err)
