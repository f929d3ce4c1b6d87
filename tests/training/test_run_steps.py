"""The steps of a run are those of the loop that one would write: losses, weights, schedules and clipping."""

import dataclasses
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs import CONFIG, PLAIN, Plain, batches, hand_written_loop, regression, run, steps, two_models
from torch import Tensor, nn

import seeking
from seeking import Condition, Every, Never, Trainer
from seeking.weights_map import tensors


def test_the_same_seed_is_the_same_run() -> None:
    (original, first), (repeated, second) = run(), run()
    assert first.history == second.history
    for role in ("base", "motivated"):
        ours, theirs = (tensors(trainer.learners[role].module) for trainer in (original, repeated))
        assert all(torch.equal(t, theirs[n]) for n, t in ours.items())


def test_a_pair_that_is_never_motivated_is_ordinary_training_of_the_base() -> None:
    paired, together = run(condition=Never())
    alone = Trainer(two_models()[0], **batches(padding=1, flip=True), config=CONFIG)
    result = alone.fit()
    assert [row["loss"] for row in steps(together)] == [row["loss"] for row in steps(result)]
    theirs = tensors(alone.learners["base"].module)
    assert all(torch.equal(t, theirs[n]) for n, t in tensors(paired.pair.base).items())
    assert together.metrics["base"] == result.metrics["base"]
    assert "motivated" not in result.metrics


def test_ordinary_training_is_a_plain_loop() -> None:
    base, _ = two_models()
    expected = two_models()[0]
    config = dataclasses.replace(PLAIN, schedule="constant", weight_decay=0.0, optimizer="momentum")
    result = Trainer(base, train_loader=batches()["train_loader"], config=config).fit()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.05, momentum=0.9)
    losses = hand_written_loop(expected, optimizer)
    assert [row["loss"] for row in steps(result)] == losses
    assert all(torch.equal(t, tensors(base)[n]) for n, t in tensors(expected).items())


@pytest.mark.parametrize("state", ["separate", "shared"])
@pytest.mark.parametrize("norm", ["shared", "private", "recalibrated"])
def test_the_motivated_loop_is_the_three_line_loop(norm: str, state: str) -> None:
    config = dataclasses.replace(
        PLAIN, schedule="constant", weight_decay=0.0, optimizer="momentum", norm=norm, optimizer_state=state
    )
    trainer, result = run(config, train_loader=batches()["train_loader"])

    pair = seeking.Pair(*two_models(), norm=norm)
    condition = seeking.ConsecutiveDecrease(1)
    optimizers = tuple(
        torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (pair.base, pair.motivated_model)
    )
    data = batches()["train_loader"]

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    expected = []
    for epoch in range(2):
        data.sampler.set_epoch(epoch)
        for x, y in data:
            loss = train_step(pair.base, optimizers[0], x, y)
            expected.append((loss, None))
            if condition.update(loss):
                with pair.motivated(optimizers if state == "shared" else None) as model:
                    expected[-1] = (loss, train_step(model, optimizers[1], x, y))
    assert [(row["loss"], row.get("motivated_loss")) for row in steps(result)] == expected
    assert any(motivated for _, motivated in expected)
    parameters = dict(trainer.pair.base.named_parameters())
    assert all(torch.equal(p, parameters[n]) for n, p in pair.base.named_parameters())


def test_on_next_moves_every_motivated_step_by_one_batch() -> None:
    class Recording(Condition):
        def __init__(self) -> None:
            self.decisions: list[bool] = []

        def holds(self, loss: float, **signals: float) -> bool:
            assert signals["epoch_length"] == 6
            assert signals["learning_rate"] > 0
            self.decisions.append(len(self.decisions) % 5 in (0, 3))
            return self.decisions[-1]

    for on, shift in (("same", 0), ("next", 1)):
        condition = Recording()
        _, result = run(dataclasses.replace(CONFIG, on=on), condition=condition)
        motivated = ["motivated_loss" in row for row in steps(result)]
        assert motivated == ([False] * shift + condition.decisions)[: len(motivated)]


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "step", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 1 / 6, 0.5])
def test_both_schedules_count_batches_of_the_run(schedule: str, warmup: float) -> None:
    rates: list[tuple[float, float]] = []
    config = dataclasses.replace(CONFIG, schedule=schedule, warmup_epochs=warmup)

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "step":
            rates.append(tuple(learner.optimizer.param_groups[0]["lr"] for learner in trainer.learners.values()))

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer = Trainer(*two_models(), **batches(), config=config, condition=Every(5), listeners=[listen])
        trainer.fit()
    assert all(base == motivated for base, motivated in rates)
    assert len(rates) == 12
    assert max(base for base, _ in rates) <= config.lr * (1 + 1e-6)
    if warmup > 0.2:
        assert rates[0][0] < config.lr
    if schedule in ("cosine", "onecycle"):
        assert rates[-1][0] < 0.05 * config.lr


@pytest.mark.parametrize("clip", [None, 0.1])
def test_accumulated_batches_are_one_batch(clip: float | None) -> None:
    (whole, first), (parts, second) = regression(24, clip_grad=clip), regression(8, accumulate=3, clip_grad=clip)
    assert len(steps(first)) == len(steps(second)) == 12
    assert first.cost.batches == second.cost.batches
    assert first.cost.samples == second.cost.samples == 3 * 96
    for role in ("base", "motivated"):
        ours, theirs = (tensors(trainer.learners[role].module) for trainer in (whole, parts))
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_first_step() -> None:
    moved = []
    for clip in (None, 1e-3):
        trainer, _ = regression(
            96, clip_grad=clip, optimizer="momentum", schedule="constant", weight_decay=0.0, momentum=0.0
        )
        torch.manual_seed(0)
        torch.randn(96, 5)
        before = Plain(6)
        gap = [(p - q).norm() for p, q in zip(trainer.pair.base.parameters(), before.parameters(), strict=True)]
        moved.append(torch.stack(gap).norm().item())
    assert moved[1] <= 3 * 0.05 * 1e-3 * 1.01 * 2 < moved[0]


def test_epochs_by_hand_are_the_epochs_of_fit() -> None:
    fitted, result = run(PLAIN)
    trainer = Trainer(*two_models(), **batches(padding=1, flip=True), config=PLAIN)
    trainer.begin()
    for epoch in range(PLAIN.epochs):
        assert trainer.progress.epoch == epoch
        trainer.train_epoch()
    assert trainer.progress == fitted.progress
    assert trainer.scores.latest == result.metrics
