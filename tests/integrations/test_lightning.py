"""Pairs under Lightning."""

import os
import random
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

L = pytest.importorskip("lightning", reason="needs lightning: pip install 'seeking[lightning]'")
import lit  # noqa: E402
from lightning.pytorch.callbacks import (  # noqa: E402
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.plugins.precision import MixedPrecision  # noqa: E402
from lightning.pytorch.strategies import ModelParallelStrategy  # noqa: E402
from lit import Classifier, data, lightning, loss_fn, module, network  # noqa: E402

import seeking  # noqa: E402
from seeking import Pair, SeekingError  # noqa: E402
from seeking.errors import RunWarning  # noqa: E402
from seeking.integrations.lightning import MotivatedModule  # noqa: E402
from seeking.integrations.lightning_hooks import OF_BOTH  # noqa: E402

KINDS = ("loss_fn", "modules")


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    left, right = ours.state_dict(), theirs.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 4, "gradient_clip_val": 0.1},
        {"precision": "bf16-mixed", "max_steps": 7},
        {
            "limit_train_batches": 4,
            "val_check_interval": 2,
            "gradient_clip_val": 0.1,
            "gradient_clip_algorithm": "value",
        },
    ],
    ids=str,
)
def test_without_motivated_steps_the_base_trains_as_under_lightning_itself(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    ours = module("modules", "never")
    torch.manual_seed(0)
    alone = Classifier(3)
    for each in (ours, alone):
        lightning(tmp_path, **options).fit(each, data(), data(24))
    assert same(ours.base, alone)


class WithoutIndex(Classifier):
    """As a user may write one: no step takes the index of the batch."""

    def training_step(self, batch: Any) -> torch.Tensor:  # type: ignore[override]
        return super().training_step(batch, 0)

    def validation_step(self, batch: Any) -> None:  # type: ignore[override]
        super().validation_step(batch, 0)

    def predict_step(self, batch: Any) -> torch.Tensor:  # type: ignore[override]
        return self(batch[0]).softmax(1)


class WithKeywords(Classifier):
    def training_step(self, batch: Any, *rest: Any, **more: Any) -> torch.Tensor:
        assert isinstance(rest[0], int)
        return super().training_step(batch, rest[0])

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self(batch[0]) + batch_idx + 10 * dataloader_idx


@pytest.mark.parametrize("kind", [WithoutIndex, WithKeywords])
def test_steps_get_what_lightning_would_give_them(kind: type[Classifier], tmp_path: Path) -> None:
    torch.manual_seed(0)
    models = [kind(width) for width in (3, 3, 5)]
    models[1].load_state_dict(models[0].state_dict())
    pair = Pair(models[1], models[2])
    predicted = []
    for each in (models[0], MotivatedModule(pair, condition="never")):
        trainer = lightning(tmp_path)
        trainer.fit(each, data(), data(24))
        predicted.append(trainer.predict(each, data() if kind is WithoutIndex else [data(), data()]))
    assert same(models[0], models[1])
    for alone, within in zip(*predicted, strict=True):
        torch.testing.assert_close(alone, within)
    with pair.motivated() as model:
        assert torch.equal(
            trainer.predict(model, data(24))[0],
            model.predict_step(next(iter(data(24))), *(() if kind is WithoutIndex else (0,))),
        )


def test_random_numbers_of_the_evaluation_are_those_of_the_base_alone(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    class Noisy(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return super().training_step([batch[0] + torch.randn_like(batch[0]), batch[1]], batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            seen.append((self.net[0].out_features, float(torch.rand(1)) + random.random() + np.random.rand()))

        def on_validation_epoch_end(self) -> None:
            self.validation_step(None, 0)

    models = [Noisy(width) for width in (3, 3, 5)]
    models[1].load_state_dict(models[0].state_dict())
    for each in (models[0], MotivatedModule(Pair(models[1], models[2]), condition="never")):
        L.seed_everything(0, verbose=False)
        lightning(tmp_path).fit(each, data(), data(24))
    assert same(models[0], models[1])
    drawn = {width: [number for each, number in seen if each == width] for width in (3, 5)}
    assert drawn[3] == 2 * drawn[5]  # The base has drawn them alone and in the pair.


@pytest.mark.parametrize("options", [{}, {"gradient_clip_val": 0.05}, {"accumulate_grad_batches": 2}], ids=str)
def test_each_step_is_that_of_a_loop_by_hand(tmp_path: Path, options: dict[str, Any]) -> None:
    ours, hand = module(), module().pair
    lightning(tmp_path, **options).fit(ours, data())
    optimizers = {m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (hand.base, hand.motivated_model)}
    step = 0

    def take(model: nn.Module, batch: list[torch.Tensor]) -> None:
        loss_fn(model, batch).backward()
        if "gradient_clip_val" in options:
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizers[model].step()
        optimizers[model].zero_grad()

    for epoch in range(3):
        for batch in data(4 * options.get("accumulate_grad_batches", 1)):
            for optimizer in optimizers.values():
                optimizer.param_groups[0]["lr"] = 0.1 * 0.5**epoch
            take(hand.base, batch)
            step += 1
            if step % 2 == 0:
                with hand.motivated() as model:
                    take(model, batch)
    with hand.motivated(), ours.pair.motivated():
        for mine, theirs in zip(ours.motivated.parameters(), hand.motivated_model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert ours.motivated_steps == step // 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2, "precision": "bf16-mixed"}], ids=str)
def test_resumed_equals_uninterrupted(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    whole = module(kind, "decrease:1 | random:0.3")
    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    lightning(tmp_path, callbacks=[saving], **options).fit(whole, data(), data(24))
    resumed = module(kind, "decrease:1 | random:0.3")
    lightning(tmp_path, **options).fit(resumed, data(), data(24), ckpt_path=str(tmp_path / "epoch=0.ckpt"))
    assert same(whole, resumed)
    assert resumed.motivated_steps == whole.motivated_steps > 0


def test_checkpoints_load_and_hold_the_base_inside_the_motivated_model(tmp_path: Path) -> None:
    trained = module()
    trainer = lightning(tmp_path)
    trainer.fit(trained, data(), data(24))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fresh = Pair(network(3), network(5))
    loaded = MotivatedModule.load_from_checkpoint(
        tmp_path / "last.ckpt", pair=fresh, loss_fn=loss_fn, optimizer=torch.optim.SGD
    )
    assert same(loaded, trained)
    assert seeking.verify(fresh.base, fresh.motivated_model, fresh.map, next(iter(data()))[0])


@pytest.mark.parametrize("monitor", ["val_loss", "motivated_val_loss"])
def test_both_models_are_measured_and_either_chooses_the_best(tmp_path: Path, monitor: str) -> None:
    trained, best = module(), ModelCheckpoint(tmp_path, monitor=monitor, mode="max")
    trainer = lightning(tmp_path, callbacks=[best])
    trainer.fit(trained, data(), data(24))
    assert best.best_model_score > trainer.callback_metrics[monitor]
    measured = trainer.validate(trained, data(24), ckpt_path="best", verbose=False)
    assert measured[0][monitor] == pytest.approx(float(best.best_model_score))


def test_an_optimizer_may_ask_for_the_gradient_several_times_a_step(tmp_path: Path) -> None:
    class Twice(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            closure()
            return super().step(closure)

    trained = {}
    for kind in (torch.optim.SGD, Twice):
        trained[kind] = module()
        trained[kind].optimizer = lambda parameters, kind=kind: kind(parameters, lr=0.1, momentum=0.9)
        lightning(tmp_path, accumulate_grad_batches=1).fit(trained[kind], data())
    assert same(*trained.values())


def test_signals_and_outcomes(tmp_path: Path) -> None:
    seen: list[seeking.Signals] = []

    class Looking(seeking.Condition):
        needs_gradients = True

        def decide(self, signals: seeking.Signals) -> bool:
            seen.append(signals)
            return True

        def feedback(self, outcome: seeking.Outcome) -> None:
            assert outcome.taken and outcome.grad_norm > 0 and outcome.shared_gradients
            assert outcome.shared_gradients().keys() == seen[-1].gradients.keys()

    trained = module(condition=Looking())
    lightning(tmp_path).fit(trained, data())
    assert [signals.step for signals in seen] == list(range(18))
    assert {(signals.steps, signals.epoch_length) for signals in seen} == {(18, 6)}
    assert all(signals.grad_norm > 0 and signals.learning_rate > 0 for signals in seen)


def test_a_stream_has_no_end(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(data(4))

    trained = module()
    trainer = lightning(tmp_path, max_epochs=-1, max_steps=8)
    trainer.fit(trained, torch.utils.data.DataLoader(Stream(), batch_size=None))
    assert (trainer.global_step, trained.motivated_steps) == (8, 4)
    trained.condition = seeking.MatchedCount(trained.condition)
    with pytest.raises(SeekingError, match="needs the number of batches in an epoch"):
        lightning(tmp_path, max_epochs=-1, max_steps=1).fit(
            trained, torch.utils.data.DataLoader(Stream(), batch_size=None)
        )


def test_a_new_run_from_a_checkpoint_begins_with_new_optimizers(tmp_path: Path) -> None:
    trained, saving = module("modules"), ModelCheckpoint(tmp_path, monitor="accuracy")
    trainer = lightning(tmp_path, callbacks=[saving])
    trainer.fit(trained, data(), data(24))
    trainer.validate(trained, data(24), ckpt_path="best", verbose=False)
    pair = Pair(Classifier(3), Classifier(5))
    loaded = MotivatedModule.load_from_checkpoint(saving.best_model_path, pair=pair, condition="every:2")
    for each in (trained, loaded):
        each.motivated_steps = 0
        again = lightning(tmp_path, max_epochs=1)
        again.fit(each, data())
        for optimizer, steps in ((again.optimizers[0], 6), (each._optimizer, 3)):
            assert {int(state["step"]) for state in optimizer.state.values()} == {steps}
        assert each.motivated_steps == 3


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_motivated_step_whose_gradient_is_not_finite_is_left_out(tmp_path: Path, precision: str) -> None:
    def spoiled(model: nn.Module, batch: Any) -> torch.Tensor:
        broken = model[0].out_features == 5 and both.global_step == 5
        return loss_fn(model, batch) * (float("nan") if broken else 1)

    both = module()
    both.loss_fn = spoiled
    lightning(tmp_path, precision=precision, gradient_clip_val=1.0).fit(both, data())
    assert both.motivated_steps == 8
    assert all(tensor.isfinite().all() for tensor in both.state_dict().values())


class Seen(seeking.Every):
    """Every second step; remembers what it is told."""

    def __init__(self) -> None:
        super().__init__(2)
        self.signals: list[seeking.Signals] = []
        self.taken: list[bool] = []

    def decide(self, signals: seeking.Signals) -> bool:
        self.signals.append(signals)
        return super().decide(signals)

    def feedback(self, outcome: seeking.Outcome) -> None:
        self.taken.append(outcome.taken)


@pytest.mark.parametrize("name", ["base", "motivated"])
def test_an_overflow_under_16_mixed_leaves_out_the_step_of_one_model(name: str, tmp_path: Path) -> None:
    """With a scaler on the CPU, as of a GPU; Lightning's schedules go on."""
    both = module()
    both.condition = seen = Seen()
    weight = getattr(both, name)[0].weight
    weight.register_hook(lambda gradient: gradient * (float("inf") if both.global_step in (3, 5) else 1))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    lightning(tmp_path, plugins=MixedPrecision("16-mixed", "cpu", scaler), gradient_clip_val=1.0).fit(both, data())
    assert all(tensor.isfinite().all() for tensor in both.state_dict().values())
    wrong = [signals.step for signals in seen.signals if not signals.base_stepped]
    assert len(seen.signals) == 18
    if name == "base":
        assert len(wrong) == 2 and all(seen.taken) and both.motivated_steps == 9
        assert scaler.get_scale() == 256
    else:
        assert not wrong and seen.taken.count(False) == 18 // 2 - both.motivated_steps > 0
    assert both._optimizer.param_groups[0]["lr"] == 0.1 * 0.5**2  # By the epochs, whichever steps were left out.


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}], ids=str)
def test_all_but_the_position_in_the_data_is_resumed_within_an_epoch(tmp_path: Path, options: dict[str, Any]) -> None:
    """Lightning begins with the first batch of the epoch again; so here all batches are the same one."""

    def batches() -> Any:
        return torch.utils.data.DataLoader([next(iter(data()))] * 6, batch_size=None)

    condition = "every:3 | random:0.2"
    whole = module("modules", condition)
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    lightning(tmp_path, callbacks=[saving], **options).fit(whole, batches())
    resumed = module("modules", condition)
    lightning(tmp_path, **options).fit(resumed, batches(), ckpt_path=str(tmp_path / "step=2.ckpt"))
    assert same(whole, resumed)
    assert resumed.motivated_steps == whole.motivated_steps > 0


def test_steps_may_leave_out_their_last_arguments(tmp_path: Path) -> None:
    short = MotivatedModule(Pair(WithoutIndex(3), WithoutIndex(5)), condition="every:2")
    usual = MotivatedModule(Pair(Classifier(3), Classifier(5)), condition="every:2")
    usual.load_state_dict(short.state_dict())
    for each in (short, usual):
        lightning(tmp_path).fit(each, data(), data(24))
    assert same(short, usual)


def test_hooks_of_both_models_are_called_and_predictions_are_the_bases(tmp_path: Path) -> None:
    called: dict[str, list[int]] = {}

    class Noting(Classifier):
        def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self(batch[0]).argmax(1)

        test_step = Classifier.validation_step

    for name in (*OF_BOTH, "on_train_start"):
        setattr(Noting, name, lambda self, name=name: called.setdefault(name, []).append(self.net[0].out_features))
    trained = MotivatedModule(Pair(Noting(3), Noting(5)))
    trainer = lightning(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    trainer.fit(trained, data(), data(24))
    trainer.test(trained, data(24), verbose=False)
    assert called == {name: [3, 5] for name in (*OF_BOTH, "on_train_start")}
    (predicted,) = trainer.predict(trained, data(24))
    assert torch.equal(predicted, trained.base(next(iter(data(24)))[0]).argmax(1))
    plain = module()
    lightning(tmp_path, max_epochs=1).fit(plain, data())
    assert trainer.predict(plain, torch.utils.data.DataLoader(torch.zeros(2, 4)))[0].shape == (1, 2)


def test_hooks_that_are_not_called_are_told_or_refused() -> None:
    def pair(**hooks: Any) -> Pair:
        kind = type("Own", (Classifier,), hooks)
        return Pair(kind(3), kind(5))

    for name in ("configure_gradient_clipping", "optimizer_step", "on_after_batch_transfer", "lr_scheduler_step"):
        with pytest.raises(SeekingError, match=f"Own overrides {name}, which is not called"):
            MotivatedModule(pair(**{name: lambda self, *_: None}))
    with pytest.warns(RunWarning, match="on_train_batch_end, train_dataloader of Own are not called"):
        MotivatedModule(pair(train_dataloader=lambda self: data(), on_train_batch_end=lambda self, *_: None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MotivatedModule(pair(on_train_epoch_end=lambda self: None))


def test_refusals(tmp_path: Path) -> None:
    pair = Pair(network(3), network(5))
    with pytest.raises(SeekingError, match="give loss_fn and optimizer"):
        MotivatedModule(pair)
    with pytest.raises(SeekingError, match=r"takes a pair, not a Classifier; give it seeking\.Pair"):
        MotivatedModule(Classifier(3))  # type: ignore[arg-type]
    criterion: Any = nn.CrossEntropyLoss()
    with pytest.raises(TypeError) as raised:
        lightning(tmp_path).fit(MotivatedModule(pair, loss_fn=criterion, optimizer=torch.optim.SGD), data())
    assert "a loss_fn takes the model and a batch" in str(raised.value.__notes__)
    with pytest.raises(SeekingError, match="optimizers of their own"):
        MotivatedModule(Pair(Classifier(3), Classifier(5)), loss_fn=loss_fn)
    with pytest.raises(SeekingError, match=r"only seeking\.Trainer"):
        MotivatedModule(pair, loss_fn=loss_fn, optimizer=torch.optim.SGD, condition="held_out:4")
    for manual in (0, 1):
        models = Classifier(3), Classifier(5)
        models[manual].automatic_optimization = False
        with pytest.raises(SeekingError, match="would never be trained"):
            MotivatedModule(Pair(*models))
    trainer = lightning(tmp_path, max_epochs=1)
    trainer.fit(Classifier(3), data())
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(SeekingError, match="not one of a MotivatedModule"):
        lightning(tmp_path).fit(module(), data(), ckpt_path=str(tmp_path / "other.ckpt"))


def deeper(*, tie: bool) -> MotivatedModule:
    """Most of whose weights are in one storage for both models, if they are tied."""
    torch.manual_seed(0)
    return MotivatedModule(
        Pair(network(4, 1), network(4, 2), tie=tie),
        condition="every:2",
        loss_fn=loss_fn,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    )


def test_averages_of_weights_leave_the_training_as_it_is(tmp_path: Path) -> None:
    """Lightning exchanges the weights with their averages for each evaluation; both models get theirs at the end."""
    seen: dict[bool, list[float]] = {True: [], False: []}
    averages: list[torch.Tensor] = []

    class Looking(L.Callback):
        def __init__(self, averaged: bool) -> None:
            self.averaged = averaged

        def on_train_batch_end(self, trainer: Any, both: Any, outputs: Any, *rest: Any) -> None:
            seen[self.averaged].append(float(outputs["loss"]))
            if self.averaged:
                with both.pair.motivated() as model:
                    now = nn.utils.parameters_to_vector([*both.base.parameters(), *model.parameters()]).detach()
                averages[:] = [0.5 * averages[0] + 0.5 * now if averages else now]

    for averaged in (True, False):
        callbacks = [Looking(averaged), *([EMAWeightAveraging(decay=0.5)] if averaged else [])]
        both = deeper(tie=False)
        trainer = lightning(tmp_path, callbacks=callbacks, num_sanity_val_steps=0)
        trainer.fit(both, data(), data(24))
        if averaged:
            with both.pair.motivated() as model:
                trained = nn.utils.parameters_to_vector([*both.base.parameters(), *model.parameters()])
            torch.testing.assert_close(trained.detach(), averages[0])
    assert seen[True] == seen[False]


def test_callbacks_that_would_average_one_model_alone_or_tied_weights_twice_are_refused(tmp_path: Path) -> None:
    for callback, tie, reason in (
        (EMAWeightAveraging(), True, "exchanges each weight"),
        (StochasticWeightAveraging(0.1), True, "averages tied weights twice"),
        (StochasticWeightAveraging(0.1), False, "for the base alone"),
    ):
        with pytest.raises(SeekingError, match=rf"{type(callback).__name__} .*{reason}.* Pair\(..., tie=False\)"):
            lightning(tmp_path, callbacks=[callback]).fit(deeper(tie=tie), data())


@pytest.mark.parametrize("form", [lambda loss: {"loss": loss}, lambda loss: (loss, "more")])
def test_a_loss_may_have_any_form_that_the_trainer_takes(tmp_path: Path, form: Any) -> None:
    plain, formed = module(), module()
    formed.loss_fn = lambda model, batch: form(loss_fn(model, batch))
    for each in (plain, formed):
        trainer = lightning(tmp_path, max_epochs=1)
        trainer.fit(each, data(), data(24))
        assert {"val_loss", "motivated_val_loss"} <= trainer.callback_metrics.keys()
    assert same(plain, formed)


def test_each_model_is_evaluated_and_trained_by_itself_after_the_run(tmp_path: Path) -> None:
    both = module("modules")
    trainer = lightning(tmp_path, max_epochs=1)
    trainer.fit(both, data(), data(24))
    together = trainer.callback_metrics
    with both.pair.motivated() as model:
        assert trainer.validate(model, data(24), verbose=False) == [{"accuracy": together["motivated_accuracy"]}]
    both.pair.separate()
    for model in (both.base, both.motivated):
        alone = lightning(tmp_path, max_epochs=1)
        alone.fit(model, data(), data(24))
        assert alone.callback_metrics.keys() == {"loss", "accuracy"}


def test_habits_of_lightning(tmp_path: Path) -> None:
    """Early stopping and a schedule by the motivated model, rates in the log, and a time limit."""
    logger = CSVLogger(tmp_path)
    both = module()
    both.schedule = lambda optimizer: {
        "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0),
        "monitor": "motivated_val_loss",
    }
    callbacks = [EarlyStopping("motivated_val_loss", min_delta=10.0, patience=2), LearningRateMonitor("step")]
    trainer = lightning(
        tmp_path, callbacks=callbacks, logger=logger, log_every_n_steps=1, max_epochs=9, max_time={"minutes": 5}
    )
    trainer.fit(both, data(), data(24))
    assert trainer.current_epoch == 3  # Neither gets better by 10.
    rates = trainer.optimizers[0].param_groups[0]["lr"], both._optimizer.param_groups[0]["lr"]
    assert rates == pytest.approx((1e-4, 1e-3))  # The motivated model's of its last step.
    logged = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"lr-SGD", "motivated_share", "motivated_train_loss", "motivated_val_loss"} <= {*logged}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "compiled"), [("loss_fn", "whole"), ("modules", "models")])
def test_compiled_models_take_the_same_steps(compiled: str, kind: str, tmp_path: Path) -> None:
    """The module as Lightning takes compiled ones, or its models; by a compiler that rounds as PyTorch does."""
    plain, both = module(kind), module(kind)
    lightning(tmp_path, max_steps=2).fit(plain, data())
    if compiled == "models":
        for model in (both.base, both.motivated):
            model.compile(backend="eager")
    given = torch.compile(both, backend="eager") if compiled == "whole" else both
    lightning(tmp_path, max_steps=2).fit(given, data())
    assert both.motivated_steps == 1 and same(plain, both)


@pytest.fixture
def processes() -> Iterator[None]:
    """Lets a strategy join processes, and leaves none behind."""
    with mock.patch.dict(os.environ):
        yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("processes")
def test_a_strategy_that_would_shard_the_base_alone_is_refused_at_the_start(tmp_path: Path) -> None:
    both = module()
    both.configure_model = lambda: pytest.fail("the models are sharded")  # type: ignore[method-assign]
    with pytest.raises(SeekingError, match=r"ModelParallelStrategy cannot train a pair; .*seeking.Trainer, with shard"):
        lightning(tmp_path, strategy=ModelParallelStrategy(process_group_backend="gloo"), devices=1).fit(both, data())


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(client: str, tmp_path: Path) -> None:
    """With clipping, and with accumulation in bf16; and go on from the end of an epoch."""
    for processes in ("1", "2"):
        done = subprocess.run(
            [client, "--processes", processes, lit.__file__, str(tmp_path / processes)],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    for kind, rounding in [(f"{kind}{end}", by) for kind in KINDS for end, by in (("", 1e-5), (", bf16", 5e-3))]:
        ours, theirs = (torch.load(tmp_path / by / f"{kind}.ckpt", weights_only=True) for by in ("1", "2"))
        assert ours["seeking"]["motivated_steps"] == theirs["seeking"]["motivated_steps"] > 0
        for name, tensor in ours["state_dict"].items():
            other = theirs["state_dict"][name]
            torch.testing.assert_close(tensor, other, rtol=10 * rounding, atol=rounding)
