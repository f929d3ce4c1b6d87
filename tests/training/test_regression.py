"""Models that put out values: the loss, the metrics, and runs by the option ``loss``."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import PLAIN
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanAbsoluteError, MeanSquaredError, R2Score

from seeking import SeekingError, TrainConfig, Trainer
from seeking.training.objective import summarized
from seeking.training.regression import Regression

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
Y = X[:, 0] * 3 + 5


def network(width: int, outputs: int = 1) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, outputs))


def trainer(targets: Tensor = Y, outputs: int = 1, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    loaders = {"train_loader": DataLoader(TensorDataset(X, targets), 4)}
    loaders["eval_loader"] = DataLoader(TensorDataset(X, targets), 5)
    models = network(3, outputs), network(5, outputs)
    return Trainer(*models, **loaders, **{"config": replace(PLAIN, loss="mse", lr=0.01), **changes})


def weights(trainer: Trainer) -> list[Tensor]:
    trainer.fit()
    with trainer.run.pair.motivated() as model:
        return [*trainer.run.base.module.parameters(), *model.parameters()]


SHAPES = st.sampled_from([(), (1,), (3,), (2, 3)])


@given(SHAPES, st.sampled_from([torch.float32, torch.float64, torch.int64]), st.floats(0.1, 100), st.integers(0, 99))
@settings(max_examples=20)
def test_metrics_are_those_of_all_samples_in_any_batches(
    shape: tuple[int, ...], dtype: torch.dtype, unit: float, seed: int
) -> None:
    torch.manual_seed(seed)
    outputs, targets = torch.randn(12, *shape), (5 * torch.randn(12, *shape)).to(dtype)
    objective = Regression(unit=unit)
    by_name: dict[str, list[Tensor]] = {}
    for part in torch.arange(12).split([5, 1, 6]):
        batch = outputs[part], targets[part][:, None] if not shape else targets[part]
        losses = objective.evaluate(lambda inputs: inputs, batch)  # type: ignore[arg-type]
        torch.testing.assert_close(
            objective.loss(lambda inputs: inputs, batch).double(),  # type: ignore[arg-type]
            losses["loss"].mean(),
            rtol=1e-5,
            atol=1e-6,
        )
        for name, values in losses.items():
            by_name.setdefault(name, []).append(values)
    metrics = summarized(objective, {name: float(torch.cat(values).mean()) for name, values in by_name.items()})
    flat = outputs.flatten(), targets.to(outputs.dtype).flatten()
    assert metrics["rmse"] == pytest.approx(unit * float(MeanSquaredError(squared=False)(*flat)), rel=1e-5)
    assert metrics["mae"] == pytest.approx(unit * float(MeanAbsoluteError()(*flat)), rel=1e-5)


@pytest.mark.parametrize("targets", [Y, Y[:, None], Y.double()], ids=["flat", "column", "double"])
def test_the_option_is_the_loss_fn_bit_for_bit(targets: Tensor) -> None:
    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        return F.mse_loss(model(batch[0])[:, 0], batch[1])

    expected = weights(trainer(loss_fn=loss_fn, config=replace(PLAIN, lr=0.01)))
    assert all(map(torch.equal, weights(trainer(targets)), expected))


@pytest.mark.parametrize("best", [None, "rmse", "mae"])
def test_the_lowest_is_best(best: str | None) -> None:
    result = trainer(config=replace(PLAIN, loss="mse", lr=0.05, epochs=5, best=best)).fit()
    for name in ("base", "motivated"):
        every = [row[name][best or "rmse"] for row in result.history if row["kind"] == "eval"]
        assert result.best[name][best or "rmse"] == min(every)


def test_several_values_a_sample_and_metrics_of_ones_own() -> None:
    metrics = {"r2": R2Score()}
    measured = trainer(X[:, :2], 2, metrics=metrics).fit().metrics["base"]
    assert measured.keys() == {"loss", "rmse", "mae", "r2"}
    taught = trainer(config=replace(PLAIN, loss="mse", lr=0.01, teach=1.0, condition="always")).fit()
    assert taught.metrics["base"]["loss"] != measured["loss"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": X[:, :3]}, r"targets are float32 of shape \[4, 3\], and the model puts out \[4, 1\]; give it as"),
        ({"outputs": 4}, r"targets are float32 of shape \[4\], and the model puts out \[4, 4\]"),
        ({"targets": torch.view_as_complex(X[:, :2].contiguous())}, "targets are complex64"),
        ({"loss_fn": lambda model, batch: model(batch[0]).mean()}, "loss mse and a loss_fn contradict each other"),
        ({"metrics": {"rmse": R2Score()}}, "metric rmse"),
    ],
)
def test_what_would_be_broadcast_or_contradicts_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        trainer(**change)


def test_there_are_no_labels_to_smooth() -> None:
    with pytest.raises(SeekingError, match=r"label_smoothing is 0.1, but loss mse has no labels"):
        TrainConfig(loss="mse", label_smoothing=0.1)
