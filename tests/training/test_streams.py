"""Data without a length: the same run as over data with one, resumed where it was."""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from runs import stop_at
from streams import DATA, Stream, X, rows, trainer
from tiny import TINY, Network
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from seeking import Always, MatchedCount, RunError, SeekingError, Trainer
from seeking.conditions.grammar import known
from seeking.training.objective import Classification


class Shuffled(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return (DATA[number] for number in torch.randperm(len(DATA)).tolist())


class Positioned:
    """A loader that keeps its own position, as torchdata's does; it counts the batches that it has read."""

    def __init__(self) -> None:
        self.position = self.read = self.start = 0

    def __iter__(self) -> Iterator[Any]:
        self.position, self.start = self.start, 0
        while self.position < 5:
            part = slice(self.position * 4, self.position * 4 + 4)
            self.position += 1
            self.read += 1
            yield DATA[part]

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["position"]


OPTIONS = [
    {"schedule": "wsd", "warmup_steps": 3},
    {"schedule": "onecycle", "condition": "after:0.5"},
    {"budget": 0.9},
    {"finish": "private", "base_condition": "before:0.3 | every:2"},
    {"accumulate": 2, "condition": "decrease:1"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_stream_is_the_run_over_the_same_batches(options: dict[str, Any]) -> None:
    epochs = trainer(DataLoader(DATA, 4), epochs=3, **options)
    epochs.fit()
    steps = trainer(DataLoader(Stream(), 4), max_steps=epochs.progress.steps, **options)
    steps.fit()
    assert rows(steps) == rows(epochs)


CONDITIONS = {
    "affordable": "affordable:1,1",
    "agreement": "agreement:0",
    "below_trend": "below_trend:1,0.5",
    "exp3": "exp3:0.5,4",
    "grad_norm": "grad_norm:1,0.5",
    "held_out": "held_out:2",
    "matched": "~matched(every:2) & always",
    "next": "next(matched(always))",
    "random": "random:0.5",
    "smoothed": "smoothed:1",
}


@pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")
@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("option", ["condition", "base_condition"])
@pytest.mark.parametrize("name", sorted(known()))
def test_a_condition_is_refused_before_the_first_batch_or_not_at_all(name: str, option: str, one_pass: bool) -> None:
    text = CONDITIONS.get(name, f"{name}:2" if name in ("after", "before", "decrease", "every") else name)
    options = {"condition": "every:2", "base_condition": "every:2 | before:0.5", option: text}
    if one_pass:
        options |= {"update": "joint", "one_pass": True}
    torch.manual_seed(0)
    models = (nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth)), nn.Linear(4, 2)) for depth in (2, 3))
    config = dataclasses.replace(TINY, max_steps=4, verify=False, **options)
    refused = ""
    try:
        run = Trainer(*models, train_loader=DataLoader(Stream(), 4), config=config)
    except SeekingError as error:
        refused = str(error)
    if refused:
        assert refused.startswith(f"{option} is {text.split(':')[0]}"), refused
        return
    assert "matched" not in text, "it needs the length of an epoch"
    run.fit()


def test_a_condition_that_knows_the_length_of_an_epoch_takes_a_stream() -> None:
    condition = MatchedCount(Always(), epoch_length=2)
    run = Trainer(
        *(Network(3), Network(5)),
        train_loader=DataLoader(Stream(), 4),
        config=dataclasses.replace(TINY, max_steps=4),
        condition=condition,
    )
    run.fit()
    assert condition.seen == 4


class Keeping(IterableDataset[Any]):
    """A stream that keeps its position and counts what it has read; each pass is in another random order."""

    def __init__(self, unpackable: bool = False) -> None:
        self.place = self.start = self.read = 0
        self.order: list[int] = []
        self.unpackable = unpackable

    def __iter__(self) -> Iterator[Any]:
        if not self.start:
            self.order = torch.randperm(len(DATA)).tolist()
        self.place, self.start = self.start, 0
        while self.place < len(DATA):
            self.place += 1
            self.read += 1
            yield DATA[self.order[self.place - 1]]

    def state_dict(self) -> dict[str, Any]:
        state = {"place": self.place, "order": list(self.order)}
        return state | {"extra": {self.place}} if self.unpackable else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start, self.order = state["place"], state["order"]


def collate(rows: list[dict[str, Any]]) -> Any:
    return torch.stack([torch.as_tensor(row["x"]) for row in rows]), torch.tensor([row["y"] for row in rows])


def streamed(change: Callable[[Any], Any]) -> Any:
    """A stream of ``datasets`` in three parts."""
    rows = Dataset.from_dict({"x": X.tolist(), "y": DATA.tensors[1].tolist()}).to_iterable_dataset(num_shards=3)
    return DataLoader(change(rows), 4, collate_fn=collate)


def noisy(row: dict[str, Any]) -> dict[str, Any]:
    return {"x": torch.tensor(row["x"]) + torch.rand(4), "y": row["y"]}


def stateful(dataset: Any, **options: Any) -> Any:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    return torchdata.StatefulDataLoader(dataset, 4, **options)


KEPT = "where the loader stands"
SKIPPED = "skipping to batch"
LOADERS: dict[str, tuple[Callable[[], Any], str]] = {
    "stream": (lambda: DataLoader(Stream(), 4), SKIPPED),
    "shuffled": (lambda: DataLoader(Shuffled(), 4), SKIPPED),
    "position of a loader": (Positioned, KEPT),
    "position of a data set": (lambda: DataLoader(Keeping(), 4), KEPT),
    "position that no file can hold": (lambda: DataLoader(Keeping(unpackable=True), 4), SKIPPED),
    "datasets": (lambda: streamed(lambda rows: rows.map(noisy)), KEPT),
    "datasets, shuffled": (lambda: streamed(lambda rows: rows.shuffle(seed=3, buffer_size=10).map(noisy)), SKIPPED),
    "datasets, in order of parts": (lambda: streamed(lambda rows: rows.filter(lambda row: row["x"][0] > -1)), KEPT),
    "torchdata": (lambda: stateful(Keeping()), KEPT),
    "torchdata, without state": (lambda: stateful(Shuffled()), SKIPPED),
    "torchdata, shuffled": (
        lambda: stateful(streamed(lambda rows: rows.shuffle(seed=3, buffer_size=10)).dataset, collate_fn=collate),
        SKIPPED,
    ),
    "torchdata, workers": (
        lambda: stateful(streamed(lambda rows: rows).dataset, collate_fn=collate, num_workers=1),
        KEPT,
    ),
    "torchdata, datasets": (lambda: stateful(streamed(lambda rows: rows.map(noisy)).dataset, collate_fn=collate), KEPT),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_a_stream_is_resumed_where_it_was(kind: str, tmp_path: Path) -> None:
    """Within the first pass and a later one, at an evaluation, and between two passes; also after a failed batch."""
    make, words = LOADERS[kind]
    options: dict[str, Any] = {"max_steps": 14, "eval_every_steps": 4}
    whole = trainer(make(), **options)
    whole.fit()
    passes = whole.progress.epoch + 1
    begun = 0
    for stop in (1, 4, 6, 9, 11, 14):
        loader = make()
        told: list[str] = []
        patch = pytest.MonkeyPatch()

        def listen(row: dict[str, Any], stop: int = stop, told: list[str] = told, patch: Any = patch) -> None:
            told.append(str(row.get("text")))
            if row["kind"] == "step" and row["step"] + 1 == stop == 6:
                patch.setattr(Classification, "loss", fails)  # The next batch is loaded, and no model steps on it.
            elif row["kind"] == "step" and row["step"] + 1 == stop < 14:
                signal.raise_signal(signal.SIGINT)

        run = trainer(loader, tmp_path / "run", resume=True, listeners=[listen], **options)
        within = run.progress.step_in_epoch
        with pytest.raises(Broken if stop == 6 else KeyboardInterrupt) if stop < 14 else contextlib.nullcontext():
            run.fit()
        patch.undo()
        assert run.progress.step == stop
        read = 4 * getattr(loader, "read", 0) or getattr(getattr(loader, "dataset", None), "read", 0)
        if read and words == KEPT:
            assert read <= 4 * (stop - begun + 2), "only what is looked at, or has failed, is read and not trained on"
        if within:
            assert any(words in text for text in told)
        begun = stop
    assert passes > 2
    assert rows(run) == rows(whole)
    assert rows(run, "eval") == rows(whole, "eval")


class Broken(Exception): ...


def fails(*_: Any) -> Any:
    raise Broken


@pytest.mark.parametrize("kind", ["shuffled", "position of a data set", "datasets", "datasets, shuffled"])
def test_a_stream_goes_on_in_the_same_process(kind: str, tmp_path: Path) -> None:
    """When ``fit`` is called again, and when another run is trained on the same loader."""
    make, _ = LOADERS[kind]
    whole = trainer(make(), max_steps=9)
    whole.fit()
    loader = make()

    run = trainer(loader, tmp_path / "run", listeners=[stop_at(1, 2, 7)], max_steps=9)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run.fit()
    run.fit()
    assert rows(run) == rows(whole)
    again = trainer(loader, max_steps=9)
    again.fit()
    assert rows(again) == rows(whole)


def test_a_stream_that_is_evaluated_too_has_no_position_of_its_own(tmp_path: Path) -> None:
    data = Keeping()
    options: dict[str, Any] = {"train_loader": DataLoader(data, 4), "eval_loader": DataLoader(data, 8)}
    config = dataclasses.replace(TINY, max_steps=9, eval_every_steps=2)

    def run(folder: str, *listeners: Any) -> Trainer:
        torch.manual_seed(0)
        models = Network(3), Network(5)
        return Trainer(*models, **options, config=config, output=tmp_path / folder, resume=True, listeners=listeners)

    whole = run("whole")
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        run("cut", stop_at(2, kind="eval")).fit()
    resumed = run("cut")
    resumed.fit()
    assert rows(resumed) == rows(whole)


def test_data_that_can_be_gone_through_once_end_the_run(tmp_path: Path) -> None:
    class Once(IterableDataset[Any]):
        samples = 3  # The first pass is looked at, the second trained on.

        def __iter__(self) -> Iterator[Any]:
            type(self).samples -= 1
            return iter([DATA[0]] * 8 if self.samples else [])

    with pytest.raises(RunError, match="pass 2 over the training data gave no batch at step 2 of 9"):
        trainer(DataLoader(Once(), 4), tmp_path / "run", max_steps=9).fit()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "train_loader has no length, which schedules need.*give max_steps"),
        ({"max_steps": 9, "warmup_epochs": 1}, "train_loader has no length, so warmup_epochs 1.*give warmup_steps"),
        ({"max_steps": 9, "norm": "recalibrated"}, "train_loader has no length, so norm recalibrated"),
    ],
)
def test_what_needs_the_length_of_an_epoch_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        trainer(DataLoader(Stream(), 4), **options)
