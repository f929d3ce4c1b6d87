"""The steps of pairs under Lightning."""

import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

L = pytest.importorskip("lightning", reason="needs lightning: pip install 'seeking[lightning]'")
import lit  # noqa: E402
from lightning.pytorch.plugins.precision import MixedPrecision  # noqa: E402
from lit import KINDS, Classifier, data, lightning, loss_fn, module, same  # noqa: E402

import seeking  # noqa: E402
from seeking import Pair, SeekingError  # noqa: E402
from seeking.integrations.lightning import MotivatedModule  # noqa: E402


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


@pytest.mark.parametrize("form", [lambda loss: {"loss": loss}, lambda loss: (loss, "more")])
def test_a_loss_may_have_any_form_that_the_trainer_takes(tmp_path: Path, form: Any) -> None:
    plain, formed = module(), module()
    formed.loss_fn = lambda model, batch: form(loss_fn(model, batch))
    for each in (plain, formed):
        trainer = lightning(tmp_path, max_epochs=1)
        trainer.fit(each, data(), data(24))
        assert {"val_loss", "motivated_val_loss"} <= trainer.callback_metrics.keys()
    assert same(plain, formed)


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
