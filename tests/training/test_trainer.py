import dataclasses
import gc
import json
import math
import random
import warnings
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from runs import (
    CONFIG,
    PLAIN,
    Plain,
    batches,
    hand_written_loop,
    regression,
    regression_loss,
    run,
    steps,
    stop_at,
    two_models,
)
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import ChainDataset, DataLoader, IterableDataset, TensorDataset

import seeking
from seeking import Always, Condition, Every, MatchWarning, Never, RunError, SeekingError, TrainConfig, Trainer
from seeking.models import create
from seeking.training import Cost, count_flops
from seeking.training.custom_loss import CustomLoss
from seeking.training.failures import first_step
from seeking.weights_map import tensors


@pytest.mark.slow
def test_both_models_learn_and_the_run_is_on_disk(tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = dataclasses.replace(CONFIG, epochs=12, norm="recalibrated", recalibration_batches=2)
    trainer, result = run(config, output=output)
    assert result.metrics["base"]["accuracy"] > 0.7
    assert result.metrics["motivated"]["accuracy"] > 0.7
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert rows == result.history
    assert sum("motivated_loss" in row for row in rows) == result.cost.motivated_batches > 0
    assert seeking.WeightsMap.load(output / "map.json") == trainer.pair.map
    summary = json.loads((output / "summary.json").read_text())
    assert summary["metrics"] == result.metrics
    assert 0 < summary["cost"]["of_motivated_alone"] < 1
    for role, model in zip(("base", "motivated"), two_models(seed=5), strict=True):
        load_model(model, str(output / f"{role}.last.safetensors"))
        correct = [(model.eval()(x).argmax(-1) == y).float() for x, y in batches()["eval_loader"]]
        assert torch.cat(correct).mean().item() == pytest.approx(result.metrics[role]["accuracy"])
        assert (output / f"{role}.best.safetensors").exists()


def test_the_same_seed_is_the_same_run() -> None:
    (original, first), (repeated, second) = run(), run()
    assert first.history == second.history
    for role in ("base", "motivated"):
        ours, theirs = (tensors(trainer.learners[role].module) for trainer in (original, repeated))
        assert all(torch.equal(t, theirs[n]) for n, t in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"on_nonfinite": "rollback", "accumulate": 2, "rewarm": 1.3},
        {"condition": "affordable:1,0.5", "budget": 0.9, "finish": "private", "optimizer_state": "inherit"},
        {"update": "joint", "teach": 0.5, "ema": 0.9, "norm": "recalibrated", "extra": "neutral"},
    ],
    ids=["rollback", "budget", "joint"],
)
def test_nothing_is_kept_of_a_trainer_that_nobody_holds(options: dict[str, Any], tmp_path: Path) -> None:
    """Not even until the garbage collector runs: the workers of a loader that it finds are ended by a time-out each."""
    config = dataclasses.replace(CONFIG, **options)
    run(config, output=tmp_path / "first")  # What is imported on the way keeps the frames that called for it.
    gc.collect()
    gc.disable()
    try:
        trainer, result = run(config, output=tmp_path / "second")
        held = [trainer, trainer.run, trainer.saver, trainer.pair, trainer.pair.base, trainer.pair.motivated_model]
        held += [trainer.loaders.train, trainer.loaders.train.base_dataloader, trainer.loaders.evaluation]
        references = [(type(each).__name__, weakref.ref(each)) for each in held]
        del trainer, held
        assert [name for name, reference in references if reference() is not None] == []
        assert result.metrics
    finally:
        gc.enable()


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
@pytest.mark.parametrize("warmup", [0.0, 0.5])
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
    if warmup:
        assert rates[0][0] < config.lr
    if schedule in ("cosine", "onecycle"):
        assert rates[-1][0] < 0.05 * config.lr


def test_any_model_with_a_loss_trains() -> None:
    trainer, result = regression(16)
    assert result.metrics["base"].keys() == {"loss"}
    assert steps(result)[-1]["loss"] < steps(result)[0]["loss"]
    whole = next(iter(DataLoader(trainer.loaders.train.dataset, batch_size=96)))
    assert result.metrics["base"]["loss"] == pytest.approx(regression_loss(trainer.pair.base, whole).item(), rel=1e-5)
    assert result.best["motivated"]["loss"] <= result.metrics["motivated"]["loss"]


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
    before = Plain(6)
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


def test_flops_are_those_of_the_layers() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    x = torch.randn(4, 5)
    forward, both = count_flops(model, lambda m, batch: m(batch).sum(), x)
    assert forward == 2 * 4 * (5 * 7 + 7 * 3)
    # The backward pass makes both weight gradients and one input gradient; the data need none.
    assert both == forward + 2 * 4 * (5 * 7 + 2 * 7 * 3)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_costs_of_a_run_add_up() -> None:
    _, result = run(condition=Every(4))
    cost = result.cost
    assert (cost.batches, cost.motivated_batches, cost.samples, cost.motivated_samples) == (12, 3, 96, 24)
    report = cost.report()
    ratio = cost.motivated_flops / cost.base_flops
    assert report["of_motivated_alone"] == pytest.approx((1 + 0.25 * ratio) / ratio)
    assert report["of_both_alone"] == pytest.approx((1 + 0.25 * ratio) / (1 + ratio))
    always = Cost(
        base_flops=1.0,
        motivated_flops=2.0,
        batches=5,
        motivated_batches=5,
        run_samples=5,
        samples=5,
        motivated_samples=5,
    )
    assert always.report()["of_both_alone"] == 1


def test_recalibration_is_paid_for_and_counted() -> None:
    _, result = run(dataclasses.replace(CONFIG, norm="recalibrated", recalibration_batches=3))
    assert result.cost.recalibration_samples == 2 * 3 * 8


def test_a_loss_that_stops_being_finite_ends_the_run_and_says_when(tmp_path: Path) -> None:
    class Poison(Condition):
        def holds(self, loss: float, **signals: float) -> bool:
            poison["at"] -= 1
            return False

    poison = {"at": 8}

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y) * (math.nan if poison["at"] == 0 and model.training else 1.0)

    trainer = Trainer(
        *two_models(), **batches(), config=CONFIG, loss_fn=loss_fn, condition=Poison(), output=tmp_path / "run"
    )
    with pytest.raises(RunError, match=r"base model's loss became nan at step 8 \(epoch 2.*weights of epoch 1 are in"):
        trainer.fit()
    load_model(two_models()[0], str(tmp_path / "run" / "base.last.safetensors"))


def test_a_motivated_loss_that_is_not_finite_is_named_and_does_not_poison_the_base() -> None:
    models = two_models()
    with torch.no_grad():
        models[1].layer1[1].bn2.bias.fill_(math.inf)
    with pytest.raises(RunError, match="the motivated model's loss became"):
        Trainer(*models, **batches(), config=CONFIG, condition=Always()).fit()
    assert all(torch.isfinite(parameter).all() for parameter in models[0].parameters())


def test_a_wrong_map_does_not_train_unless_told(tmp_path: Path) -> None:
    base, motivated = two_models()
    good = seeking.match(base, motivated)
    wrong = good.entries | {
        "bn1.bias": dataclasses.replace(good.entries["bn1.bias"], index=(seeking.Index.of(range(1, 9)),))
    }
    weights_map = seeking.WeightsMap(wrong, good.motivated, good.buffers)
    output = tmp_path / "run"
    verified = dataclasses.replace(CONFIG, verify=True)
    with pytest.raises(SeekingError, match=r"not a sub-network .* bn1"):
        Trainer(base, motivated, **batches(), config=verified, weights_map=weights_map, output=output).fit()
    assert not output.exists()
    Trainer(base, motivated, **batches(), config=CONFIG, weights_map=weights_map).fit()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg'; did you mean .*sgd"),
        ({"condition": "decrease"}, None),
        ({"condition": "falls:2"}, "unknown condition 'falls'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"warmup_epochs": 20}, "warmup_epochs is 20 of 20 epochs"),
        ({"clip_grad": 0.0}, "clip_grad is 0.0"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    def make() -> Trainer:
        return Trainer(*two_models(), **batches(), config=TrainConfig(**changes), output=tmp_path / "run")

    if message is None:
        make()
    else:
        with pytest.raises(SeekingError, match=message):
            make()
    assert not (tmp_path / "run").exists()


def test_what_is_no_configuration_is_refused() -> None:
    options: Any = {"epochs": 2}
    with pytest.raises(SeekingError, match=r"config is a dict; give a TrainConfig"):
        Trainer(*two_models(), **batches(), config=options)
    with pytest.raises(SeekingError, match=r"condition is a Always; .* Trainer\(condition=...\)"):
        TrainConfig(condition=Always())  # type: ignore[arg-type]


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), lambda outputs, targets: outputs.sub(targets).mean()])
def test_a_loss_of_outputs_and_targets_is_told_what_a_loss_fn_takes(criterion: Any) -> None:
    with pytest.raises(SeekingError, match="a loss_fn takes the model and a batch, such as lambda model, batch"):
        Trainer(*two_models(), **batches(), config=CONFIG, loss_fn=criterion)


def test_data_that_a_model_refuses_are_refused_before_training(tmp_path: Path) -> None:
    x, y = torch.randn(16, 3, 8, 8), torch.full((16,), 7)
    wrong = DataLoader(TensorDataset(x, y), 4)
    with pytest.raises(SeekingError, match="label 7 of sample 0 of the batch is out of range; the model has 4"):
        Trainer(*two_models(), train_loader=wrong, config=CONFIG, output=tmp_path / "run")
    with pytest.raises(SeekingError, match="label 7 of sample 0"):
        Trainer(*two_models(), train_loader=batches()["train_loader"], eval_loader=wrong)
    with pytest.raises(SeekingError, match="evaluation data yield no batch"):
        Trainer(*two_models(), train_loader=batches()["train_loader"], eval_loader=DataLoader([]))
    assert not (tmp_path / "run").exists()
    with pytest.raises(SeekingError, match="yield no batch"):
        Trainer(*two_models(), train_loader=DataLoader(TensorDataset(x, y), 17, drop_last=True))
    nothing: IterableDataset[Any] = ChainDataset([])
    with pytest.raises(SeekingError, match="yield no batch"):
        Trainer(*two_models(), train_loader=DataLoader(nothing), config=TrainConfig(max_steps=2))


@pytest.mark.slow
def test_loaders_of_other_kinds() -> None:
    x, y = torch.randn(3, 4, 3, 8, 8), torch.randint(4, (3, 4))
    whole = [(x[i], y[i]) for i in range(3)]
    kinds = [whole, DataLoader(TensorDataset(x, y), batch_size=None), DataLoader(whole, batch_size=None)]
    results = [Trainer(*two_models(), train_loader=kind, config=CONFIG).fit() for kind in kinds]
    assert all(steps(result) == steps(results[0]) for result in results)
    with pytest.raises(SeekingError, match=r"has no length.*give max_steps"):
        Trainer(*two_models(), train_loader=DataLoader(Stream(), 2))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield torch.zeros(3, 8, 8), 0


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SeekingError, match="holds another run or files of yours"):
        Trainer(*two_models(), **batches(), output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_optimizers_and_schedules_of_ones_own() -> None:
    trainer, _ = run(
        optimizer=lambda model: torch.optim.RMSprop(model.parameters(), lr=1e-3),
        schedule=lambda optimizer, steps: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, steps),
    )
    for learner in trainer.learners.values():
        assert isinstance(learner.optimizer, torch.optim.RMSprop)
        assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)


def test_an_interrupted_run_keeps_its_last_step(tmp_path: Path) -> None:
    trainer = Trainer(*two_models(), **batches(), config=CONFIG, output=tmp_path / "run", listeners=[stop_at(3)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    kept = two_models(seed=3)[0]
    load_model(kept, str(tmp_path / "run" / "base.last.safetensors"))
    assert all(torch.equal(t, tensors(trainer.pair.base)[n]) for n, t in tensors(kept).items())
    larger = two_models(seed=3)[1]
    load_model(larger, str(tmp_path / "run" / "motivated.last.safetensors"))
    inside = trainer.pair.map.extract(tensors(larger))
    assert all(torch.equal(p, inside[n]) for n, p in kept.named_parameters())


def test_an_optimizer_whose_state_cannot_be_shared_is_refused_before_training() -> None:
    config = dataclasses.replace(CONFIG, optimizer="adafactor", optimizer_state="shared")
    with pytest.raises(
        SeekingError, match=r"optimizer Adafactor: its state '\w+' has no .* \[.*set optimizer_state to separate"
    ):
        Trainer(*two_models(), **batches(), config=config)


def test_batches_with_other_things_than_tensors() -> None:
    rows = [{"id": str(index), "x": torch.randn(5), "y": torch.zeros(())} for index in range(12)]
    trainer = Trainer(
        Plain(4), Plain(6), train_loader=DataLoader(rows, 4), loss_fn=regression_loss, config=TrainConfig(epochs=1)
    )
    assert trainer.fit().cost.samples == 12


@pytest.mark.slow
def test_width_under_layer_norm_trains_in_mixed_precision() -> None:
    kwargs = {"num_classes": 4, "img_size": 8, "patch_size": 4, "depth": 1}
    models = [create(f"vit_{size}_patch16_224", **kwargs) for size in ("tiny", "small")]
    Trainer(*models, **batches(), config=dataclasses.replace(CONFIG, precision="bf16")).fit()


def test_mixed_precision_trains() -> None:
    _, result = run(dataclasses.replace(CONFIG, precision="bf16", epochs=3))
    assert math.isfinite(result.metrics["motivated"]["loss"])


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device is 'gpu', which is not a device; available are cpu"),
        ("cuda:99", "there is no device cuda:99 on this machine; available are cpu"),
    ],
)
def test_a_device_that_does_not_exist_is_refused(device: str, message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        Trainer(*two_models(), **batches(), config=dataclasses.replace(CONFIG, device=device))


def test_a_device_may_be_named() -> None:
    trainer = Trainer(*two_models(), **batches(), config=dataclasses.replace(CONFIG, device="cpu"))
    assert trainer.accelerator.device == torch.device("cpu")


@pytest.mark.parametrize("condition", ["decrease:2", 3, Always, lambda signals: True])
def test_what_is_no_condition_is_refused_at_the_start(condition: Any) -> None:
    with pytest.raises(SeekingError, match="give a seeking"):
        Trainer(*two_models(), **batches(), config=CONFIG, condition=condition)


class Learning(Condition):
    """Keeps what the steps of both models give."""

    needs_gradients = True

    def __init__(self) -> None:
        self.norms: list[float] = []

    def decide(self, signals: seeking.Signals) -> bool:
        assert signals.gradients
        return True

    def feedback(self, outcome: seeking.Outcome) -> None:
        assert outcome.gradients
        self.norms.append(
            float(torch.cat([g.flatten() for g in outcome.gradients.values()]).norm()) - outcome.grad_norm
        )


def test_a_condition_that_needs_gradients_gets_those_of_the_motivated_step_too() -> None:
    condition = Learning()
    run(condition=condition)
    assert condition.norms
    assert all(abs(difference) < 1e-3 for difference in condition.norms)


@pytest.mark.parametrize("draw", [torch.rand, np.random.rand, lambda n: [random.random() for _ in range(n)]])
def test_a_loss_that_draws_random_numbers_is_no_reason_to_refuse_a_map(draw: Any) -> None:
    def noisy_loss(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        weight = torch.as_tensor(draw(len(x)), dtype=x.dtype).view(-1, 1, 1, 1)
        return F.cross_entropy(model(weight * x + (1 - weight) * x.flip(0)), y)

    Trainer(*two_models(), **batches(), config=CONFIG, loss_fn=noisy_loss)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (
            lambda model, batch: (model(batch["x"]), regression_loss(model, batch)),
            r"loss_fn returned a tensor of shape",
        ),
        (lambda model, batch: (1, regression_loss(model, batch)), "loss_fn returned a tuple of int, Tensor"),
        (lambda model, batch: {"l2": regression_loss(model, batch)}, "loss_fn returned a dict with l2"),
        (lambda model, batch: SimpleNamespace(loss=1.0), "loss_fn returned a SimpleNamespace"),
        (lambda model, batch: float(regression_loss(model, batch)), "loss_fn returned a float"),
        (lambda model, batch: None, "loss_fn returned a NoneType"),
        (lambda model, batch: model(batch["x"]), r"loss_fn returned a tensor of shape \[8, 1\]"),
        (lambda model, batch: regression_loss(model, batch).long(), "torch.int64"),
    ],
)
def test_what_is_no_loss_is_named_and_not_blamed_on_the_model(loss_fn: Any, message: str) -> None:
    rows = [{"x": row, "y": row.sum()} for row in torch.randn(16, 5)]
    no_map = warnings.catch_warnings(action="error", category=MatchWarning)  # None is derived by such a loss.
    with no_map, pytest.raises(SeekingError, match=message) as raised:
        Trainer(Plain(6), Plain(9), train_loader=DataLoader(rows, batch_size=8), loss_fn=loss_fn, config=PLAIN)
    assert "model (" not in str(raised.value)


def test_models_in_which_all_is_frozen_are_refused() -> None:
    models = [model.requires_grad_(False) for model in two_models()]
    with pytest.raises(SeekingError, match=r"the base model \(OneStage\) has no parameter to train.*all are frozen"):
        Trainer(*models, **batches(), config=CONFIG)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_switched_off_are_told(off: Any) -> None:
    models = two_models()
    with off(), pytest.raises(SeekingError, match="gradients are switched off"):
        Trainer(*models, **batches(), config=CONFIG)
    trainer = Trainer(*models, **batches(), config=CONFIG)
    with off(), pytest.raises(SeekingError, match="gradients are switched off"):
        trainer.fit()
    assert trainer.progress.step == 0


def test_a_loss_that_raises_is_told_before_a_map_is_derived_by_it() -> None:
    rows = [{"x": row, "y": row.sum()} for row in torch.randn(16, 5)]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return batch["label"] - model(batch["x"])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            SeekingError, match=r"the base model \(Plain\) fails on the training data: KeyError: 'label'"
        ):
            Trainer(Plain(6), Plain(9), train_loader=DataLoader(rows, batch_size=8), loss_fn=loss, config=PLAIN)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (lambda loss: loss, "Regression.evaluate returned a Tensor"),
        (lambda loss: {"error": loss}, "Regression.evaluate returned error"),
        (lambda loss: {"loss": loss.mean()}, r"returned loss of shape \[\]"),
        (lambda loss: {"loss": loss, "error": loss[:1]}, r"returned error of shape \[1\]"),
        (lambda loss: {"loss": loss, "error": 1.0}, "returned error a float"),
    ],
)
def test_what_are_no_metrics_are_named(metrics: Any, message: str) -> None:
    class Regression(CustomLoss):
        def evaluate(self, model: nn.Module, batch: Any) -> Any:
            return metrics((model(batch["x"])[:, 0] - batch["y"]).square())

    rows = [{"x": row, "y": row.sum()} for row in torch.randn(16, 5)]
    data = {"train_loader": DataLoader(rows, batch_size=8), "eval_loader": DataLoader(rows, batch_size=8)}
    objective = Regression(regression_loss)
    with pytest.raises(SeekingError, match=message):
        Trainer(Plain(6), Plain(9), **data, objective=objective, config=PLAIN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": lambda model: torch.optim.LBFGS(model.parameters())}, "optimizer LBFGS.*closure"),
        ({"schedule": lambda optimizer, steps: ReduceLROnPlateau(optimizer)}, "schedule ReduceLROnPlateau.*metrics"),
    ],
)
def test_what_needs_more_than_a_step_is_refused_at_the_start(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        Trainer(*two_models(), **batches(), config=CONFIG, **changes)


def test_epochs_by_hand_are_the_epochs_of_fit() -> None:
    fitted, result = run(PLAIN)
    trainer = Trainer(*two_models(), **batches(padding=1, flip=True), config=PLAIN)
    trainer.begin()
    for epoch in range(PLAIN.epochs):
        assert trainer.progress.epoch == epoch
        trainer.train_epoch()
    assert trainer.progress == fitted.progress
    assert trainer.scores.latest == result.metrics


def test_only_models_of_the_run_that_have_been_evaluated_are_saved_as_best() -> None:
    trainer = Trainer(*two_models(), **batches(), config=CONFIG)
    with pytest.raises(SeekingError, match="unknown model 'bse'; did you mean base"):
        trainer.save(last=["bse"])
    with pytest.raises(SeekingError, match="base model has not been evaluated"):
        trainer.save(best=["base"])


def test_a_part_is_named_by_a_string() -> None:
    part = nn.Linear(1, 1)
    with pytest.raises(SeekingError, match=r"part 3.*int"):
        Trainer(*two_models(), **batches(), config=CONFIG, parts={3: part})  # type: ignore[dict-item]


def test_what_is_no_model_is_named() -> None:
    base, motivated = two_models()
    for given, problem in (
        ((None, None), "there is no model"),
        ((seeking.Pair(*two_models()), None), r"base is a Pair; .*weights_map=pair.map"),
        ((base, "resnet50"), "motivated is a str, not a torch.nn.Module"),
        ((nn.Linear, motivated), "base is a type, not a torch.nn.Module"),
    ):
        with pytest.raises(SeekingError, match=problem):
            Trainer(*given, train_loader=[])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("several", "failed", "kind"),
    [(False, False, SeekingError), (True, True, SeekingError), (True, False, RuntimeError)],
)
def test_a_lost_process_is_no_state_that_does_not_fit(several: bool, failed: bool, kind: type[Exception]) -> None:
    learners = {"base": SimpleNamespace(stepped=False)}
    requests = SimpleNamespace(several=several, failed=failed)
    resumed: Any = SimpleNamespace(learners=learners, stepper=SimpleNamespace(requests=requests))
    with pytest.raises(kind) as caught, first_step(resumed, "runs/a"):
        raise RuntimeError("connection closed by peer")
    assert "first step after resuming" in " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
