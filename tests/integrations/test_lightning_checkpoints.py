"""Checkpoints of pairs under Lightning, the best of them, and averages of weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

L = pytest.importorskip("lightning", reason="needs lightning: pip install 'seeking[lightning]'")
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging  # noqa: E402
from lit import KINDS, Classifier, data, lightning, loss_fn, module, network, same  # noqa: E402

import seeking  # noqa: E402
from seeking import Pair, SeekingError  # noqa: E402
from seeking.integrations.lightning import MotivatedModule  # noqa: E402


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
