"""Whatever a loss does to its batch, each step gets the batch as the loader made it."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import seeking
from seeking.errors import SeekingError
from seeking.renewed import renewed
from seeking.training.lending import Lending
from seeking.weights_map import tensors_in


class Named(NamedTuple):
    x: Tensor
    more: dict[str, Any]


@dataclasses.dataclass
class Record:
    x: Tensor
    more: dict[str, Any]


class Thing:
    """An object of the user's, as graphs are."""

    def __init__(self, x: Tensor, more: dict[str, Any]) -> None:
        self.x, self.more = x, more


KINDS: dict[str, Callable[[Tensor, dict[str, Any]], Any]] = {
    "dict": lambda x, more: {"x": x, "more": more},
    "user dict": lambda x, more: collections.UserDict({"x": x, "more": more}),
    "ordered": lambda x, more: collections.OrderedDict(x=x, more=more),
    "list": lambda x, more: [x, more],
    "tuple": lambda x, more: (x, more),
    "named tuple": Named,
    "dataclass": Record,
}


def parts(batch: Any) -> tuple[Tensor, dict[str, Any]]:
    if isinstance(batch, tuple | list):
        return batch[0], batch[1]
    if isinstance(batch, Record | Thing):
        return batch.x, batch.more
    return batch["x"], batch["more"]


def take_out(batch: Any) -> None:
    parts(batch)[1].pop("labels")


def take_all(batch: Any) -> None:
    if isinstance(batch, list | collections.UserDict | dict):
        batch.clear()


def put_in(batch: Any) -> None:
    parts(batch)[1]["labels"] = 1 - parts(batch)[1]["labels"]


def assign(batch: Any) -> None:
    if isinstance(batch, Record | Thing):
        batch.x = batch.x + 1
    elif not isinstance(batch, tuple):
        batch[0 if isinstance(batch, list) else "x"] = parts(batch)[0] + 1


def write(batch: Any) -> None:
    parts(batch)[0].mul_(2)


def write_within(batch: Any) -> None:
    parts(batch)[1]["labels"].fill_(0)


CHANGES = [lambda batch: None, take_out, take_all, put_in, assign, write, write_within]


def snapshot(batch: Any) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors_in(batch)]


@settings(max_examples=60)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    changes=st.dictionaries(st.sampled_from("ab"), st.sampled_from(CHANGES)),
    n=st.integers(1, 4),
)
def test_every_borrower_gets_the_batch_as_it_was(kind: str, changes: dict[str, Callable[[Any], None]], n: int) -> None:
    lending = Lending()
    for _ in range(n):
        batch = KINDS[kind](torch.randn(2, 3), {"labels": torch.tensor([1, 0]), "names": ["one", "two"]})
        before = snapshot(batch)
        for borrower in ("a", "b", "a"):
            with lending.lent(batch, borrower) as own:
                assert type(own) is type(batch)
                assert all(map(torch.equal, tensors_in(own), before))
                assert parts(own)[1]["names"] == ["one", "two"]
                changes.get(borrower, lambda batch: None)(own)
        assert len(tensors_in(batch)) == len(before)
        assert all(map(torch.equal, tensors_in(batch), before))


def test_tensors_are_copied_for_those_who_change_them_and_for_nobody_else() -> None:
    lending = Lending()
    for turn in range(3):
        batch = (torch.randn(2, 3), {"labels": torch.zeros(2)})
        for borrower in ("writer", "reader"):
            with lending.lent(batch, borrower) as own:
                assert (own[0] is batch[0]) == (borrower == "reader" and turn > 0)
                if borrower == "writer":
                    own[0].mul_(2)


def test_a_change_that_comes_late_is_refused_before_another_computes_with_it() -> None:
    lending = Lending()
    for late in (False, True):
        batch = {"x": torch.randn(2, 3)}
        with lending.lent(batch, "base model") as own:
            if late:
                own["x"].mul_(2)
    with (
        pytest.raises(SeekingError, match=r"the loss of the base model changes .* of shape \[2, 3\].* x\.clone"),
        lending.lent(batch, "motivated model"),
    ):
        pass
    with lending.lent({"x": torch.randn(2, 3)}, "motivated model"):
        pass


def test_objects_are_renewed_at_the_outside() -> None:
    thing = Thing(torch.zeros(2), {})
    new = renewed(thing)
    assign(new)
    assert thing.x.sum() == 0
    assert new.x.sum() == 2
    assert renewed(nn.ReLU) is nn.ReLU


@pytest.mark.slow
@pytest.mark.parametrize("change", [take_out, write], ids=["take out", "write"])
def test_a_run_whose_loss_changes_its_batch_is_the_run_whose_loss_does_not(
    change: Callable[[Any], None], tmp_path: Any
) -> None:
    """With a loader that yields the same tensors in each epoch, and a stop in between."""

    def metrics(changes: bool) -> list[float]:
        torch.manual_seed(0)
        loader = [{"x": torch.randn(8, 4), "more": {"labels": torch.randint(2, (8,))}} for _ in range(3)]

        def loss_fn(model: nn.Module, batch: Any) -> Tensor:
            x, more = parts(batch)
            loss = F.cross_entropy(model(x * 1), more["labels"])
            if changes:
                change(batch)
            return loss

        trainer = seeking.Trainer(
            *(nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)) for width in (3, 5)),
            train_loader=loader,
            eval_loader=loader,
            held_out=loader,
            loss_fn=loss_fn,
            config=seeking.TrainConfig(epochs=2, condition="always | held_out:1", lr=0.1),
        )
        result = trainer.fit()
        return [value for row in result.rows() for value in row.values() if isinstance(value, float)]

    assert metrics(True) == metrics(False)
