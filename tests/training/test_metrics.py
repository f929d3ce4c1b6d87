"""Metrics of one's own, for any kind of task, and the best weights by any of them."""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import PLAIN
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import JaccardIndex, MeanSquaredError, MetricCollection
from torchmetrics.classification import MulticlassF1Score, MultilabelF1Score
from torchmetrics.text import Perplexity

from seeking import SeekingError, TrainConfig, Trainer
from seeking.report.folder import describe
from seeking.training.evaluation import Scores
from seeking.training.metrics import Best, UserMetrics
from seeking.training.objective import Classification, Objective

CPU = torch.device("cpu")
CONFIG = dataclasses.replace(PLAIN, epochs=1)


class Mlp(nn.Sequential):
    def __init__(self, width: int, outputs: int = 3) -> None:
        super().__init__(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, outputs))


def f1(outputs: Tensor, targets: Tensor) -> float:
    return float(f1_score(targets, outputs.argmax(1), average="macro", labels=range(3), zero_division=0))


@settings(max_examples=8)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_metrics_are_those_of_all_samples_whatever_the_batches(sizes: list[int]) -> None:
    x, y = torch.randn(sum(sizes), 5), torch.randint(3, (sum(sizes),))
    models = Mlp(4), Mlp(6)
    metrics = {"f1": MulticlassF1Score(3), "by_hand": f1, "count": lambda outputs, targets: {"n": len(targets)}}
    parts = [*zip(x.split(sizes), y.split(sizes), strict=True)]
    result = Trainer(*models, train_loader=[(x, y)], eval_loader=parts, metrics=metrics, config=CONFIG).fit()
    for model, name in zip(models, ("base", "motivated"), strict=True):
        with torch.no_grad():
            expected = f1(model(x), y)
        measured = result.metrics[name]
        assert measured["by_hand"] == pytest.approx(expected, abs=1e-6)
        assert measured["count_n"] == sum(sizes)
        present = len({*y.tolist(), *model(x).argmax(1).tolist()})
        assert measured["f1"] == pytest.approx(expected * 3 / present, abs=1e-6)  # Of the classes that there are.


def fit(models: tuple[nn.Module, nn.Module], batch: Any, **options: Any) -> Mapping[str, float]:
    torch.manual_seed(0)
    return (
        Trainer(*models, train_loader=[batch] * 4, eval_loader=[batch] * 2, config=CONFIG, **options)
        .fit()
        .metrics["base"]
    )


def test_several_labels_a_sample() -> None:
    x = torch.randn(32, 5)
    metrics = {"f1": MultilabelF1Score(3), "labels": MetricCollection({"again": MultilabelF1Score(3)})}
    measured = fit(
        (Mlp(4), Mlp(6)),
        (x, (x[:, :3] > 0).float()),
        loss_fn=lambda model, batch: F.binary_cross_entropy_with_logits(model(batch[0]), batch[1]),
        predict_fn=lambda model, batch: (model(batch[0]), batch[1].long()),
        metrics=metrics,
    )
    assert 0 < measured["f1"] == measured["labels_again"] < 1
    assert not metrics["f1"].update_called  # type: ignore[union-attr]


class Segmentation(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 2, 1)

    def forward(self, image: Tensor, **targets: Tensor) -> Tensor:
        return self.outer(self.inner(image).relu())


def test_segmentation() -> None:
    image = torch.randn(8, 1, 6, 6)
    measured = fit(
        (Segmentation(4), Segmentation(6)),
        {"image": image, "labels": (image[:, 0] > 0).long()},
        loss_fn=lambda model, batch: F.cross_entropy(model(batch["image"]), batch["labels"]),
        metrics={"iou": JaccardIndex(task="multiclass", num_classes=2)},
    )
    assert 0 < measured["iou"] <= 1


class Language(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(11, width), nn.Linear(width, 11)

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.words(words))


def test_language_models() -> None:
    def loss(model: nn.Module, words: Tensor) -> Tensor:
        return F.cross_entropy(model(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())

    measured = fit(
        (Language(4), Language(6)),
        torch.randint(11, (8, 12)),
        loss_fn=loss,
        predict_fn=lambda model, words: (model(words[:, :-1]), words[:, 1:]),
        metrics={"perplexity": Perplexity()},
    )
    assert measured["perplexity"] == pytest.approx(math.exp(measured["loss"]), rel=1e-4)


VALUES = st.lists(st.floats(-5, 5) | st.just(math.nan), min_size=1, max_size=8)


@given(values=VALUES, mode=st.sampled_from(("max", "min")))
def test_the_best_is_the_first_extreme_and_any_number_is_better_than_none(values: list[float], mode: str) -> None:
    scores = Scores(Best(Classification(), "f1", mode, UserMetrics(None, None, CPU)))
    for epoch, value in enumerate(values):
        scores.latest = {"base": {"accuracy": -value, "f1": value}}
        scores.update(epoch)
    numbers = [value for value in values if value == value]
    expected = values.index((max if mode == "max" else min)(numbers)) if numbers else 0
    assert scores.best["base"]["epoch"] == expected


def order(name: str | None, mode: str | None = None, **metrics: Any) -> Best:
    return Best(Classification(), name, mode, UserMetrics(metrics, None, CPU))


def test_which_way_is_better_is_known_or_asked_for() -> None:
    for best, better, worse in (
        (order(None), {"accuracy": 2}, {"accuracy": 1}),
        (order("loss"), {"loss": 1}, {"loss": 2}),
        (order("f1", f1=MulticlassF1Score(3)), {"f1": 2}, {"f1": 1}),
        (order("mse", mse=MeanSquaredError()), {"mse": 1}, {"mse": 2}),
        (order("mse", "max", mse=MeanSquaredError()), {"mse": 2}, {"mse": 1}),
    ):
        assert best.is_better(better, worse)
        assert not best.is_better(worse, better)
    with pytest.raises(SeekingError, match="best is f1, which may be better the higher or the lower; give best_mode"):
        order("f1", f1=f1).check({"f1": 1})
    with pytest.raises(SeekingError, match="best_mode is max, but there is no best"):
        TrainConfig(best_mode="max")


X, Y = torch.randn(8, 5), torch.arange(8) % 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": {"f1": f1_score}}, r"metric f1: .*predict_fn"),
        ({"metrics": {"f1": MulticlassF1Score}}, "metric f1 is the class MulticlassF1Score"),
        ({"metrics": {"f1": 3}}, "metric f1 is a int"),
        (
            {"metrics": {"f1": MulticlassF1Score(3, average=None)}},
            r"gives a tensor of shape \[3\].*macro",
        ),
        ({"metrics": {"f1": lambda outputs, targets: "good"}}, "metric f1: it gives a str"),
        ({"metrics": [f1]}, r"metrics are a list; give them by name, such as \{'f1': ...\}"),
        (
            {"metrics": {"f1": f1}, "predict_fn": lambda model, batch: model(batch[0])},
            "predict_fn returned a Tensor, not outputs and targets",
        ),
        ({"config": dataclasses.replace(CONFIG, best="f2")}, "unknown metric in best 'f2'"),
        ({"metrics": {"loss": f1}}, "metric loss: the objective measures one of that name"),
        (
            {"metrics": {"f1": f1}, "predict_fn": lambda model, batch: (batch, Y)},
            "its outputs are a list",
        ),
        ({"metrics": {"f1": f1}, "eval_loader": None}, "of which there are none; give an eval_loader"),
        ({"predict_fn": lambda model, batch: batch}, "predict_fn gives outputs and targets for metrics"),
        ({"config": dataclasses.replace(CONFIG, best="f2", best_mode="max")}, "unknown metric in best 'f2'"),
    ],
)
def test_what_cannot_be_measured_is_told_at_the_start(options: dict[str, Any], message: str) -> None:
    data = DataLoader([*zip(X, Y, strict=True)], 4)
    with pytest.raises(SeekingError, match=message):
        Trainer(Mlp(4), Mlp(6), **{"train_loader": data, "eval_loader": data, "config": CONFIG, **options})


def test_batches_of_which_the_targets_are_not_known_are_told() -> None:
    with pytest.raises(SeekingError, match="what the targets are in a batch that is a Tensor; give"):
        fit((Language(4), Language(6)), torch.ones(4, 4).long(), loss_fn=lambda m, x: m(x).mean(), metrics={"f": f1})


def test_batches_that_a_function_cannot_join_are_told() -> None:
    batches: list[Any] = [torch.ones(2, size).long() for size in (3, 4)]
    trainer = Trainer(
        Language(4),
        Language(6),
        train_loader=batches,
        eval_loader=batches,
        loss_fn=lambda model, x: model(x).square().mean(),
        predict_fn=lambda model, x: (model(x), x),
        metrics={"mean": lambda outputs, targets: outputs.mean()},
        config=CONFIG,
    )
    with pytest.raises(SeekingError, match=r"metric mean: its outputs are of shape \[2, 4, 11\] after \[2, 3, 11\]"):
        trainer.fit()


def test_the_best_weights_are_those_of_the_metric(tmp_path: Path) -> None:
    class Falling:
        """The first evaluation of each model is the best."""

        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, outputs: Tensor, targets: Tensor) -> int:
            self.calls += 1
            return -self.calls

    data = DataLoader([*zip(X, Y, strict=True)], 4)
    config = dataclasses.replace(CONFIG, epochs=3, best="falling", best_mode="max")
    models: tuple[Any, Any] = (Mlp(4), Mlp(6))
    own = {"metrics": {"falling": Falling()}, "output": tmp_path / "run"}
    result = Trainer(*models, train_loader=data, eval_loader=data, **own, config=config).fit()  # type: ignore[arg-type]
    assert "motivated falling -" in describe(tmp_path / "run")[0]
    assert [best["epoch"] for best in result.best.values()] == [1, 1]
    assert statistics.mean(best["falling"] for best in result.best.values()) < 0
    objective: Objective = Classification()
    assert objective.is_better({"accuracy": 1}, {"accuracy": 0})
