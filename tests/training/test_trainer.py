"""The Trainer: models learn, what a run leaves, and what of its own a user may bring."""

import dataclasses
import gc
import json
import math
import random
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from runs import CONFIG, Plain, batches, regression, regression_loss, run, steps, stop_at, two_models
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import seeking
from seeking import Always, Condition, RunError, SeekingError, TrainConfig, Trainer
from seeking.models import create
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


def test_any_model_with_a_loss_trains() -> None:
    trainer, result = regression(16)
    assert result.metrics["base"].keys() == {"loss"}
    assert steps(result)[-1]["loss"] < steps(result)[0]["loss"]
    whole = next(iter(DataLoader(trainer.loaders.train.dataset, batch_size=96)))
    assert result.metrics["base"]["loss"] == pytest.approx(regression_loss(trainer.pair.base, whole).item(), rel=1e-5)
    assert result.best["motivated"]["loss"] <= result.metrics["motivated"]["loss"]


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


def test_a_device_may_be_named() -> None:
    trainer = Trainer(*two_models(), **batches(), config=dataclasses.replace(CONFIG, device="cpu"))
    assert trainer.accelerator.device == torch.device("cpu")


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
