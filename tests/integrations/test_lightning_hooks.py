"""The steps and hooks of users' modules under Lightning: which are called, and which are refused."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

L = pytest.importorskip("lightning", reason="needs lightning: pip install 'seeking[lightning]'")
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.strategies import ModelParallelStrategy  # noqa: E402
from lit import Classifier, data, lightning, loss_fn, module, network, same  # noqa: E402

from seeking import Pair, SeekingError  # noqa: E402
from seeking.errors import RunWarning  # noqa: E402
from seeking.integrations.lightning import MotivatedModule  # noqa: E402
from seeking.integrations.lightning_hooks import OF_BOTH  # noqa: E402


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
