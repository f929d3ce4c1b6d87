"""One optimizer step on the gradients of both models, and what one of them learns from the other."""

import dataclasses
import itertools
import warnings
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import (
    CONFIG,
    PLAIN,
    OneStage,
    assert_equal,
    batches,
    regression,
    run,
    steps,
    two_models,
    weights,
    whole_and_resumed,
)
from torch import nn
from torch.func import functional_call

from seeking import Pair, SeekingError, TrainConfig, Trainer, match
from seeking.choices import Student
from seeking.errors import RunWarning
from seeking.gradients import add_gradients
from seeking.training.config import Update
from seeking.training.objective import distilled

JOINT: dict[str, Any] = {"condition": "always", "update": "joint"}


def sizes() -> st.SearchStrategy[tuple[tuple[int, int], tuple[int, int]]]:
    smaller = st.tuples(st.integers(1, 4), st.integers(0, 2))
    return smaller.flatmap(
        lambda base: st.tuples(st.just(base), st.tuples(st.integers(base[0], 6), st.integers(base[1], 3)))
    )


def is_motivated(model: nn.Module) -> bool:
    return sum(parameter.numel() for parameter in model.parameters()) > 3_000


def chain(width: int, depth: int) -> nn.Sequential:
    blocks = [nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth)]
    return nn.Sequential(nn.Linear(3, width), nn.Sequential(*blocks), nn.Linear(width, 2))


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(size=sizes(), weight=st.floats(0.05, 0.95))
def test_the_gradient_is_that_of_the_weighted_sum(size: tuple[tuple[int, int], tuple[int, int]], weight: float) -> None:
    """The reference takes the base's weights from the motivated model's, and lets autograd add up."""
    torch.manual_seed(0)
    base, motivated = (chain(*each).double() for each in size)
    x, y = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    pair = Pair(base, motivated, match(base, motivated, batch=x))
    with pair.motivated():
        shared = pair.map.extract(dict(motivated.named_parameters()))
        loss = (1 - weight) * (motivated(x) - y).square().mean()
        loss = loss + weight * (functional_call(base, shared, (x,)) - y).square().mean()
        expected = torch.autograd.grad(loss, [*motivated.parameters()])
        (motivated(x) - y).square().mean().backward()
        (base(x) - y).square().mean().backward()
        add_gradients(base, motivated, pair.map, weight, 1 - weight)
    for parameter, gradient in zip(motivated.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_joint_update_is_one_step_of_one_optimizer_on_the_sum() -> None:
    config = dataclasses.replace(PLAIN, **JOINT, base_weight=0.3, weight_decay=0.0, epochs=1)
    trainer = Trainer(*two_models(), **batches(), config=config)
    base, motivated = two_models()
    pair = Pair(base, motivated, trainer.pair.map)
    optimizer = torch.optim.SGD(motivated.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=0)
    by_hand = []
    data = batches()["train_loader"]
    data.sampler.set_epoch(0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(data))
    for x, y in data:
        with pair.motivated():
            losses = [nn.functional.cross_entropy(model(x), y) for model in (base, motivated)]
            for loss in losses:
                loss.backward()
            add_gradients(base, motivated, pair.map, 0.3, 0.7)
            optimizer.step()
        base.zero_grad()
        optimizer.zero_grad()
        schedule.step()
        by_hand.append(tuple(loss.item() for loss in losses))
    result = trainer.fit()
    assert [(row["loss"], row["motivated_loss"]) for row in steps(result)] == by_hand
    assert not trainer.learners["base"].optimizer.state
    cost = trainer.run.cost
    assert cost.samples == cost.motivated_samples == cost.run_samples


@pytest.mark.slow
@pytest.mark.parametrize("student", ["motivated", "both"])
def test_a_joint_run_with_a_teacher_resumes_bit_for_bit(student: Student, tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG,
        **JOINT,
        student=student,
        teach=0.7,
        base_condition="before:0.25 | every:2",
        save_every="1",
        finish="private",
        optimizer="adamw",
        clip_grad=1.0,
        accumulate=2,
    )

    def make(**more: Any) -> Trainer:
        return Trainer(*two_models(), **batches(), config=config, **more)

    whole_and_resumed(make, tmp_path / "run", [3])


@pytest.mark.slow
def test_a_condition_sees_the_loss_of_the_batch_and_a_base_alone_takes_its_own_step() -> None:
    """Where the motivated model never steps, a joint update is none."""
    changes = {"base_condition": "always", "condition": "never"}
    expected, _ = run(dataclasses.replace(CONFIG, **changes))
    for more in ({}, {"teach": 0.5}):
        joint = dataclasses.replace(CONFIG, **changes, update="joint", **more)
        assert_equal(run(joint)[0], expected)
    _, result = run(dataclasses.replace(CONFIG, update="joint", condition="decrease:1"))
    losses = [row["loss"] for row in steps(result)]
    motivated = ["motivated_loss" in row for row in steps(result)]
    assert motivated[1:] == [after < before for before, after in itertools.pairwise(losses)]


def test_the_base_weight_moves_the_gradient_from_one_model_to_the_other() -> None:
    """With nearly all of the weight, one model is trained as if alone, at first."""
    for name, weight in (("base", 1 - 1e-7), ("motivated", 1e-7)):
        config = dataclasses.replace(PLAIN, **JOINT, base_weight=weight, optimizer="momentum", epochs=1)
        trainer, result = run(config)
        models = dict(zip(("base", "motivated"), two_models(), strict=True))
        alone = Trainer(**{name: models[name]}, **batches(padding=1, flip=True), config=config)
        prefix = alone.learners[name].column_prefix
        if name == "motivated":
            Pair(*models.values(), trainer.pair.map)
        for mine, other in zip(steps(result), steps(alone.fit()), strict=True):
            assert mine[f"{prefix}loss"] == pytest.approx(other[f"{prefix}loss"], rel=1e-2)


def test_shared_states_of_models_that_only_step_jointly_become_the_bases_as_well() -> None:
    trainer, _ = run(dataclasses.replace(CONFIG, **JOINT, optimizer_state="shared"))
    base, motivated = (trainer.learners[name].optimizer for name in ("base", "motivated"))
    assert len(base.state) == len([*trainer.learners["base"].module.parameters()])
    assert len(motivated.state) == len([*trainer.learners["motivated"].module.parameters()])


def test_the_motivated_model_can_be_the_student_and_labels_can_be_left_out() -> None:
    losses = {}
    for student in ("base", "motivated"):
        for teach in (0.0, 1.0):
            config = dataclasses.replace(CONFIG, condition="always", teach=teach, student=student, epochs=1)
            losses[student, teach] = steps(run(config)[1])[0]
    first = losses["base", 0.0]
    assert losses["motivated", 1.0]["loss"] == first["loss"]
    assert losses["motivated", 1.0]["motivated_loss"] != first["motivated_loss"]
    assert losses["base", 1.0]["loss"] != first["loss"]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("update", ["separate", "joint"])
@pytest.mark.parametrize("by", ["objective", "loss_fn"])
def test_both_models_learn_from_each_other(by: str, update: Update, accumulate: int) -> None:
    """By hand, with weights of their own from the start; the motivated model rests on every third batch."""
    taught: dict[str, Any] = {"condition": "~every:3", "teach": 0.4, "student": "both", "update": update}
    plain: dict[str, Any] = {"optimizer": "momentum", "weight_decay": 0.0, "schedule": "constant", "epochs": 1}
    config = dataclasses.replace(PLAIN, **taught, **plain, finish="private", finish_at=None, accumulate=accumulate)
    models = base, motivated = two_models()
    given = {"loss_fn": with_logits} if by == "loss_fn" else {}
    trainer, result = run(config, **given)
    Pair(base, motivated, trainer.pair.map).separate()
    optimizers = [torch.optim.SGD(model.parameters(), 0.05, momentum=0.9) for model in models]
    loader = batches(padding=1, flip=True)["train_loader"]
    loader.sampler.set_epoch(0)
    by_hand = []
    every = [*loader]
    for start in range(0, len(every), accumulate):
        parts = every[start : start + accumulate]
        both = len(by_hand) % 3 != 2
        means = [0.0, 0.0][: 1 + both]
        for x, y in parts:
            logits = [model(x) for model in models[: 1 + both]]
            losses = [nn.functional.cross_entropy(each, y) for each in logits]
            if both:
                others = [each.detach() for each in reversed(logits)]
                losses = [distilled(*each, y, 0.4, 1.0) for each in zip(losses, logits, others, strict=True)]
            for number, loss in enumerate(losses):
                (loss / len(parts)).backward()
                means[number] += loss.item() / len(parts)
        for optimizer in optimizers[: 1 + both]:
            optimizer.step()
            optimizer.zero_grad()
        by_hand.append(means)
    rows = [[row[name] for name in ("loss", "motivated_loss") if name in row] for row in steps(result)]
    assert rows == [pytest.approx(each, rel=1e-4) for each in by_hand]
    cost = trainer.run.cost
    expected = cost.samples * cost.base_flops + cost.motivated_samples * cost.motivated_flops
    assert cost.total == pytest.approx(expected)


def with_logits(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    logits = model(batch[0])
    return {"loss": nn.functional.cross_entropy(logits, batch[1]), "logits": logits}


def test_a_step_that_is_not_finite_is_skipped_for_both_and_leaves_no_gradient() -> None:
    poisoned = False

    def loss_fn(model: nn.Module, batch: Any) -> torch.Tensor:
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return loss * float("nan") if poisoned and is_motivated(model) else loss

    config = dataclasses.replace(CONFIG, **JOINT, on_nonfinite="skip")
    trainer = Trainer(*two_models(), **batches(), config=config, loss_fn=loss_fn)
    poisoned, before = True, {name: tensor.clone() for name, tensor in weights(trainer).items()}
    batch = next(iter(batches()["train_loader"]))
    with pytest.warns(UserWarning, match="motivated model's loss became nan"):
        trainer.algorithm([batch], trainer.run)
    with trainer.run.synced("motivated"):
        assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())
    assert not any(learner.gradients() for learner in trainer.learners.values())


def test_an_error_in_one_model_leaves_no_gradient_of_the_other() -> None:
    def loss_fn(model: nn.Module, batch: Any) -> torch.Tensor:
        if failing and is_motivated(model):
            raise RuntimeError("out of luck")
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    failing = False
    trainer = Trainer(*two_models(), **batches(), config=dataclasses.replace(CONFIG, **JOINT), loss_fn=loss_fn)
    failing = True
    with pytest.raises(RuntimeError, match="out of luck"):
        trainer.algorithm([next(iter(batches()["train_loader"]))], trainer.run)
    assert not any(learner.gradients() for learner in trainer.learners.values())


@pytest.mark.parametrize("width", [4, 6], ids=["depth", "both"])
@pytest.mark.parametrize("norm", ["private", "shared"])
@pytest.mark.parametrize("fault", ["nan", "base", "motivated"])
@pytest.mark.parametrize(
    "together",
    [
        {"update": "joint"},
        *({"update": "joint", "teach": 0.5, "student": each} for each in get_args(Student)),
        {"teach": 0.5, "student": "both"},
    ],
    ids=str,
)
def test_a_batch_without_a_step_changes_nothing(width: int, norm: Any, fault: str, together: dict[str, Any]) -> None:
    """No statistic either, whoever's it is and whichever model went first."""
    models = {"base": OneStage(1, width=4), "motivated": OneStage(2, width=width)}
    config = dataclasses.replace(CONFIG, condition="always", **together, norm=norm, on_nonfinite="skip")
    trainer = Trainer(*models.values(), **batches(), config=config)
    x, y = next(iter(batches()["train_loader"]))
    trainer.algorithm([(x, y)], trainer.run)
    with trainer.run.synced("motivated"):
        before = {name: tensor.clone() for name, tensor in weights(trainer).items()}
    if fault == "nan":
        with pytest.warns(UserWarning, match="is skipped"):
            trainer.algorithm([(x * float("nan"), y)], trainer.run)
    else:

        def fail(*_: Any) -> None:
            raise RuntimeError("out of luck")

        models[fault].fc.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="out of luck"):
            trainer.algorithm([(x, y)], trainer.run)
    with trainer.run.synced("motivated"):
        changed = [name for name, tensor in weights(trainer).items() if not torch.equal(tensor, before[name])]
    assert not changed
    assert not any(learner.gradients() for learner in trainer.learners.values())


@pytest.mark.slow
def test_a_joint_run_meets_its_budget() -> None:
    config = dataclasses.replace(CONFIG, epochs=8, update="joint", budget=0.8, condition="decrease:1")
    trainer, _ = run(config)
    assert trainer.run.cost.report()["of_motivated_alone"] == pytest.approx(0.8, abs=1 / trainer.progress.step)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "joint", "shard": True}, "update joint cannot be combined with shard"),
        ({"update": "joint", "precision": "fp16"}, "update joint cannot be combined with precision fp16"),
        ({"base_weight": 1.0}, "base_weight is 1.0; it is a share"),
        ({"student": "neither"}, "unknown value of student"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        TrainConfig(**options)


def test_models_with_a_loss_fn_step_jointly() -> None:
    _, result = regression(8, update="joint", condition="always")
    first, last = (row["motivated_loss"] for row in (steps(result)[0], steps(result)[-1]))
    assert last < first


def test_joint_updates_that_never_come_are_told_of() -> None:
    config = dataclasses.replace(CONFIG, **JOINT, finish="private", finish_at=0.5, epochs=1)
    with pytest.warns(RunWarning, match="update is joint, which has no effect: by base_condition after:0.5, the base"):
        run(dataclasses.replace(config, base_condition="after:0.5"))
    with pytest.warns(RunWarning, match="update is joint, which has no effect: base_condition after:0.4 and condition"):
        run(dataclasses.replace(config, base_condition="after:0.4", condition="before:0.4"))
    with pytest.warns(RunWarning, match="update is joint, which has no effect: by condition after:0.5, the motivated"):
        run(dataclasses.replace(config, base_condition="decrease:1 | always", condition="after:0.5"))
    odd_first = {"base_condition": "every:2 | after:0.5", "condition": "~every:2"}
    with pytest.warns(RunWarning, match="update is joint, .* never hold on the same batch before finish_at 0.5"):
        run(dataclasses.replace(config, **odd_first))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        run(config)
        run(dataclasses.replace(config, base_condition="after:0.4"))
        run(dataclasses.replace(config, base_condition="decrease:1 | always"))
        run(dataclasses.replace(config, condition="after:0.4"))
        run(dataclasses.replace(config, **odd_first, finish_at=0.9))
