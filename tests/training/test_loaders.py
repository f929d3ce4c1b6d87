"""The user's loader is the one that runs."""

import itertools
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from numbered import DATA, Seen, config, models
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.loader import MultiEpochsDataLoader
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from seeking import SeekingError, Trainer
from seeking.errors import RunWarning
from seeking.training.loaders import prepare


class Scaled(DataLoader[Any]):
    def __iter__(self) -> Iterator[Any]:
        for x, y in super().__iter__():
            yield x / 10, y


class Infinite(DataLoader[Any]):
    """Keeps an iterator from the start, as some training codes do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.iterator = self.passes()

    def passes(self) -> Iterator[Any]:
        while True:
            yield from super().__iter__()

    def __iter__(self) -> Iterator[Any]:
        for _ in range(len(self)):
            yield next(self.iterator)


class Around:
    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


class Cursor:
    """An iterator that starts anew."""

    def __init__(self) -> None:
        self.position = 0

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> "Cursor":
        self.position = 0
        return self

    def __next__(self) -> Any:
        self.position += 1
        if self.position > 3:
            raise StopIteration
        return DATA[self.position * 4 : self.position * 4 + 3]


class Backwards(RandomSampler):
    def __iter__(self) -> Iterator[int]:
        return iter([*super().__iter__()][::-1])


class Stream(IterableDataset[Any]):
    def __len__(self) -> int:
        return len(DATA)

    def __iter__(self) -> Iterator[Any]:
        return (DATA[number] for number in torch.randperm(len(DATA)).tolist())


LOADERS: dict[str, Callable[[], Any]] = {
    "plain": lambda: DataLoader(DATA, 4),
    "scaled": lambda: Scaled(DATA, 4, shuffle=True),
    "scaled, by workers": lambda: Scaled(DATA, 4, shuffle=True, num_workers=1),
    "many epochs": lambda: MultiEpochsDataLoader(DATA, 4, shuffle=True),
    "many epochs, by workers": lambda: MultiEpochsDataLoader(DATA, 4, shuffle=True, num_workers=1),
    "infinite": lambda: Infinite(DATA, 4, shuffle=True),
    "around infinite": lambda: Around(Infinite(DATA, 4, shuffle=True)),
    "around many epochs": lambda: Around(MultiEpochsDataLoader(DATA, 4, shuffle=True)),
    "sampler": lambda: DataLoader(DATA, 4, sampler=Backwards(DATA)),
    "generator": lambda: DataLoader(DATA, 4, shuffle=True, generator=torch.Generator().manual_seed(5)),
    "repeated": lambda: DataLoader(DATA, 4, sampler=RepeatAugSampler(DATA, 1, 0, selected_round=0)),
    "repeated for many epochs": lambda: MultiEpochsDataLoader(
        DATA, 4, sampler=RepeatAugSampler(DATA, 1, 0, selected_round=0)
    ),
    "stream": lambda: DataLoader(Stream(), 4),
    "list": lambda: [DATA[:5], DATA[5:7]],
    "cursor": Cursor,
}


def plain_loop(loader: Any, epochs: int) -> list[list[float]]:
    batches = []
    for epoch in range(epochs):
        if hasattr(sampler := getattr(loader, "sampler", None), "set_epoch"):
            sampler.set_epoch(epoch)
        batches += [x[:, 0].tolist() for x, _ in loader]
    return batches


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("norm", ["private", "recalibrated"])
def test_training_gets_what_a_plain_loop_gets(name: str, norm: str) -> None:
    if norm == "recalibrated" and "workers" in name:
        pytest.skip("as without workers")
    base, motivated = (nn.Sequential(nn.Linear(3, w), nn.BatchNorm1d(w), nn.Tanh(), nn.Linear(w, 3)) for w in (4, 6))
    torch.manual_seed(1)
    expected = plain_loop(LOADERS[name](), 3)
    torch.manual_seed(1)
    seen = Seen(base)
    options = config(norm=norm, recalibration_batches=2)
    Trainer(base, motivated, train_loader=LOADERS[name](), loss_fn=seen, config=options).fit()
    assert seen.batches == expected


@pytest.mark.parametrize("name", LOADERS)
def test_an_evaluation_gets_every_batch_of_every_pass(name: str) -> None:
    base, motivated = models()
    expected = plain_loop(LOADERS[name](), 1)
    seen = Seen(base, training=False)
    trainer = Trainer(
        base,
        motivated,
        train_loader=[DATA[:5]],
        eval_loader=LOADERS[name](),
        loss_fn=seen,
        config=config(epochs=2, condition="never"),
    )
    seen.batches.clear()
    trainer.fit()
    assert len(seen.batches) == 2 * len(expected)
    samples = [sorted(itertools.chain(*part)) for part in (expected, seen.batches[: len(expected)])]
    assert len(samples[0]) == len(samples[1])
    if "repeated" not in name:
        assert samples[0] == samples[1]


@pytest.mark.parametrize("name", [name for name in LOADERS if "infinite" not in name and name != "cursor"])
def test_a_loader_is_left_as_it_is_by_being_looked_at(name: str) -> None:
    def state() -> object:
        return dict(vars(loader)) if hasattr(loader, "__dict__") else [id(batch) for batch in loader]

    loader = LOADERS[name]()
    before = state()
    Trainer(*models(), train_loader=loader, eval_loader=loader, loss_fn=Seen(nn.Identity()), config=config())
    assert state() == before


@pytest.mark.parametrize("stop", [3, 6, 8])
@pytest.mark.parametrize(
    "name", ["scaled", "scaled, by workers", "sampler", "generator", "repeated", "repeated for many epochs", "stream"]
)
@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped_whatever_the_loader_is(name: str, stop: int, tmp_path: Path) -> None:
    def stopping(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == stop - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def trainer(folder: str, **options: Any) -> Trainer:
        pair = models()
        torch.manual_seed(1)
        return Trainer(*pair, train_loader=LOADERS[name](), config=config(), output=tmp_path / folder, **options)

    whole = trainer("whole").fit()
    with pytest.raises(SystemExit):
        trainer("stopped", listeners=[stopping]).fit()
    assert trainer("stopped", resume=True).fit().history == whole.history


class Short(DataLoader[Any]):
    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_batches_beyond_the_length_of_a_loader_are_told_of_once(accumulate: int) -> None:
    base, motivated = models()
    seen = Seen(base)
    trainer = Trainer(base, motivated, train_loader=Short(DATA, 4), loss_fn=seen, config=config(accumulate=accumulate))
    seen.batches.clear()
    with pytest.warns(RunWarning, match="gives more batches than its length of 2") as told:
        trainer.fit()
    assert len([warning for warning in told if "gives more batches" in str(warning.message)]) == 1
    assert seen.batches == [[0, 1, 2, 3], [4, 5, 6, 7]] * 3


def test_an_epoch_comes_to_the_end_of_its_loader() -> None:
    ended = []

    class Ending(DataLoader[Any]):
        def __iter__(self) -> Iterator[Any]:
            yield from super().__iter__()
            ended.append(True)

    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        Trainer(*models(), train_loader=Ending(DATA, 4), loss_fn=Seen(nn.Identity()), config=config()).fit()
    assert len(ended) == 3


def test_evaluation_data_need_no_length_but_a_batch() -> None:
    class Endless(Stream):
        __len__ = None  # type: ignore[assignment]

    class Empty(Stream):
        __len__ = None  # type: ignore[assignment]

        def __iter__(self) -> Iterator[Any]:
            return iter(())

    options = {"train_loader": [DATA[:4]], "config": config()}
    trainer = Trainer(*models(), **options, eval_loader=DataLoader(Endless(), 4))
    assert trainer.fit().metrics["base"]["loss"] > 0
    with pytest.raises(SeekingError, match="the evaluation data yield no batch"):
        Trainer(*models(), **options, eval_loader=DataLoader(Empty(), 4)).fit()


def test_a_prepared_loader_of_accelerate_is_taken_as_it_is() -> None:
    from accelerate import Accelerator

    prepared = Accelerator(cpu=True).prepare(DataLoader(DATA, 4))
    assert [part.batch[1].tolist() for part in prepare(prepared, "train_loader", 0, 1, 0).start()] == [
        y.tolist() for _, y in DataLoader(DATA, 4)
    ]
