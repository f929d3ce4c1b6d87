"""What cannot be trained, or is no option, condition, loss or metric, is refused before the first step."""

import dataclasses
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from runs import CONFIG, PLAIN, Plain, batches, regression_loss, two_models
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import ChainDataset, DataLoader, IterableDataset, TensorDataset

import seeking
from seeking import Always, MatchWarning, SeekingError, TrainConfig, Trainer
from seeking.training.custom_loss import CustomLoss
from seeking.training.failures import first_step


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


@pytest.mark.parametrize("place", [0, 1])
def test_a_model_with_nan_is_named_before_anything_else(place: int) -> None:
    models = two_models()
    with torch.no_grad():
        list(models[place].parameters())[-1][0] = math.nan
    with pytest.raises(SeekingError, match=rf"of the {('base', 'motivated')[place]} model holds NaN, from which noth"):
        Trainer(*models, **batches(), config=dataclasses.replace(CONFIG, verify=True))


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


def test_an_optimizer_whose_state_cannot_be_shared_is_refused_before_training() -> None:
    config = dataclasses.replace(CONFIG, optimizer="adafactor", optimizer_state="shared")
    with pytest.raises(
        SeekingError, match=r"optimizer Adafactor: its state '\w+' has no .* \[.*set optimizer_state to separate"
    ):
        Trainer(*two_models(), **batches(), config=config)


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


@pytest.mark.parametrize("condition", ["decrease:2", 3, Always, lambda signals: True])
def test_what_is_no_condition_is_refused_at_the_start(condition: Any) -> None:
    with pytest.raises(SeekingError, match="give a seeking"):
        Trainer(*two_models(), **batches(), config=CONFIG, condition=condition)


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
