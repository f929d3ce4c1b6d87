"""What is no loader is refused, and a data set that may be one is told of."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import pytest
import torch
from numbered import DATA, Seen, config, models
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import SeekingError, Trainer
from seeking.errors import RunWarning
from seeking.training.loaders import prepare


class Once:
    def __init__(self) -> None:
        self.batches = iter([DATA[:4], DATA[4:8]])

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Any]:
        return self.batches


@pytest.mark.parametrize(
    ("loader", "kind"),
    [
        (lambda: iter(DataLoader(DATA, 4)), "SingleProcessDataLoaderIter"),
        (lambda: (batch for batch in DataLoader(DATA, 4)), "generator"),
        (lambda: map(list, DataLoader(DATA, 4)), "map"),
        (lambda: zip(DATA[0], DATA[1], strict=False), "zip"),
        (Once, "Once"),
    ],
)
@pytest.mark.parametrize("name", ["train_loader", "eval_loader"])
def test_what_can_be_gone_through_once_is_refused(loader: Callable[[], Any], kind: str, name: str) -> None:
    loaders = {"train_loader": [DATA[:4]], name: loader()}
    with pytest.raises(SeekingError, match=rf"{name} is a \w*{kind} that can be gone through once only; give a loader"):
        Trainer(*models(), **loaders, loss_fn=Seen(nn.Identity()), config=config())


@pytest.mark.parametrize("loader", [None, 3, object()])
def test_what_is_no_loader_is_refused(loader: Any) -> None:
    with pytest.raises(SeekingError, match=rf"train_loader is a {type(loader).__name__}; give a DataLoader"):
        Trainer(*models(), train_loader=loader, config=config())


@pytest.mark.parametrize("loader", [{"a": DataLoader(range(4)), "b": DataLoader(range(4))}, [DataLoader(range(4))]])
def test_several_loaders_are_refused(loader: Any) -> None:
    with pytest.raises(SeekingError, match=r"eval_loader is a (dict|list) of loaders; give one loader"):
        prepare(loader, "eval_loader", 0, 1, 0)


def test_a_data_set_is_no_loader() -> None:
    with pytest.raises(SeekingError, match=r"train_loader is a TensorDataset, a data set .*give DataLoader\("):
        Trainer(*models(), train_loader=TensorDataset(torch.ones(4, 5)), config=config())


class Batched(TensorDataset):
    """A data set that gives its own batches."""

    def __iter__(self) -> Iterator[list[Tensor]]:
        return iter(zip(*(tensor.split(4) for tensor in self.tensors), strict=True))  # type: ignore[arg-type]


def test_a_data_set_that_gives_batches_is_a_loader() -> None:
    batches = prepare(Batched(torch.ones(8, 2), torch.zeros(8)), "train_loader", 0, 1, 0).start()
    assert [len(part.batch[0]) for part in itertools.islice(batches, 2)] == [4, 4]


def test_a_data_set_of_the_hub_may_hold_batches_and_is_told_of() -> None:
    data = datasets.Dataset.from_dict({"x": [0.0, 1.0]})
    with pytest.warns(RunWarning, match="each item of which is taken for a batch; if they are samples, give a DataL"):
        prepare(data, "train_loader", 0, 1, 0)
