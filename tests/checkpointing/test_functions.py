"""A run that is resumed with other functions than it was made with is told so."""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import PLAIN, Plain, regression_loss
from torch import Tensor, nn
from torch.utils.data import DataLoader

from seeking import Trainer
from seeking.algorithms import motivated
from seeking.checkpointing.functions import changed_names, qualified_name
from seeking.errors import RunWarning
from seeking.training.run import Batch, Run


def always(batch: Batch, run: Run) -> None:
    run.step(run.base, batch)
    with run.pair.motivated():
        run.step(run.motivated, batch)


def halved_loss(model: nn.Module, batch: Any) -> Tensor:
    return regression_loss(model, batch) / 2


class Loss:
    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return self.share * regression_loss(model, batch)

    def of(self, model: nn.Module, batch: Any) -> Tensor:
        return self(model, batch)


def trainer(output: Path, loss_fn: Callable[..., Tensor], algorithm: Any, **options: Any) -> Trainer:
    torch.manual_seed(0)
    rows = [{"x": row, "y": row.sum()} for row in torch.randn(16, 5)]
    return Trainer(
        Plain(3),
        Plain(5),
        train_loader=DataLoader(rows, batch_size=8),
        loss_fn=loss_fn,
        algorithm=algorithm,
        output=output,
        resume=True,
        config=dataclasses.replace(PLAIN, **options),
    )


FUNCTIONS: list[tuple[Callable[..., Tensor], Any]] = [
    (regression_loss, motivated),
    (halved_loss, motivated),
    (Loss(1.0), always),
    (Loss(1.0).of, None),
    (functools.partial(halved_loss), always),
]


@pytest.mark.parametrize("before", range(len(FUNCTIONS)))
def test_another_function_is_told_and_the_same_is_not(before: int, tmp_path: Path) -> None:
    trainer(tmp_path / "run", *FUNCTIONS[before], epochs=1).fit()
    names = [
        [qualified_name(loss), "" if algorithm is None else qualified_name(algorithm)] for loss, algorithm in FUNCTIONS
    ]
    for now, functions in enumerate(FUNCTIONS):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            trainer(tmp_path / "run", *functions, epochs=2)
        told = " ".join(str(warning.message) for warning in heard if warning.category is RunWarning)
        assert ("the loss was" in told) == (names[now][0] != names[before][0])
        assert ("the algorithm was" in told) == (names[now][1] != names[before][1])


def test_names_say_where_a_function_is_defined() -> None:
    assert qualified_name(halved_loss).endswith("test_functions.halved_loss")
    assert qualified_name(functools.partial(functools.partial(halved_loss))) == qualified_name(halved_loss)
    assert qualified_name(Loss(0.5)).endswith("test_functions.Loss")
    assert qualified_name(Loss(0.5).of) == f"{qualified_name(Loss(0.5))}.of"
    assert qualified_name(nn.MSELoss()) == "torch.nn.modules.loss.MSELoss"


def test_a_function_of_the_program_that_runs_is_that_of_its_module() -> None:
    assert not changed_names({"loss": "__main__.loss"}, {"loss": "train.loss"})
    assert changed_names({"loss": "__main__.loss"}, {"loss": "train.other"}) == [
        "the loss was __main__.loss and is train.other now"
    ]
    assert changed_names({"loss": "a.loss"}, {"loss": "b.loss"})
    assert not changed_names(None, {"loss": "b.loss"})  # A checkpoint of an older version.
