"""The user's loader is the one that runs, and every sample of a step weighs the same."""

import dataclasses
import itertools
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.loader import MultiEpochsDataLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from seeking import SeekingError, TrainConfig, Trainer
from seeking.errors import RunWarning
from seeking.training.loaders import prepare
from seeking.training.micro_batches import MicroBatches, Part, split
from seeking.training.samples import first_sample, sample_count
from seeking.weights_map import leaves_in

DATA = TensorDataset(torch.arange(22.0)[:, None] + torch.arange(3) / 10, torch.arange(22) % 3)


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


def models() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 3)) for width in (4, 6)]


class Seen:
    """A loss that remembers the batches of the base's steps, or of its evaluations."""

    def __init__(self, base: nn.Module, training: bool = True) -> None:
        self.base, self.training, self.batches = base, training, []  # type: ignore[var-annotated]

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        if model is self.base and model.training is self.training:
            self.batches.append(batch[0][:, 0].tolist())
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


def config(**options: Any) -> TrainConfig:
    return TrainConfig(
        **{"epochs": 3, "lr": 1e-3, "device": "cpu", "precision": "no", "condition": "every:2", **options}
    )


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
    loader = LOADERS[name]()
    before = dict(getattr(loader, "__dict__", {}))
    Trainer(*models(), train_loader=loader, eval_loader=loader, loss_fn=Seen(nn.Identity()), config=config())
    assert getattr(loader, "__dict__", {}) == before


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


@pytest.mark.slow
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans())
@settings(max_examples=20)
def test_every_sample_of_a_step_weighs_the_same(sizes: list[int], mapping: bool) -> None:
    bounds = torch.tensor([0, *sizes]).cumsum(0).tolist()
    parts = [DATA[start:end] for start, end in itertools.pairwise(bounds)]
    weights = []
    for batches in ([DATA[: bounds[-1]]], parts):
        base, motivated = models()

        def loss_fn(model: nn.Module, batch: Any) -> Tensor:
            x, y = (batch["x"], batch["y"]) if mapping else batch
            return nn.functional.cross_entropy(model(x / 20), y)

        trainer = Trainer(
            base,
            motivated,
            train_loader=[{"x": x, "y": y} for x, y in batches] if mapping else batches,
            loss_fn=loss_fn,
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.5),
            config=config(epochs=1, accumulate=len(batches), condition="always", schedule="constant", verify=False),
        )
        (row,) = [row for row in trainer.fit().history if row["kind"] == "step"]
        assert trainer.run.cost.samples == trainer.run.cost.motivated_samples == bounds[-1]
        weights.append(torch.cat([p.flatten() for model in (base, motivated) for p in model.parameters()]))
        weights.append(torch.tensor([row["loss"], row["motivated_loss"]]))
    torch.testing.assert_close(weights[0], weights[2], rtol=0, atol=2e-6)
    torch.testing.assert_close(weights[1], weights[3], rtol=0, atol=2e-6)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 5))
def test_the_parts_of_all_processes_are_the_batches_and_weigh_as_their_samples(
    sizes: list[int], processes: int
) -> None:
    values = [torch.randn(size) for size in sizes]
    of_processes = [*zip(*(split([value, ["name"] * len(value)], processes) for value in values), strict=True)]
    mean = 0.0
    for parts in of_processes:
        group = MicroBatches(parts, processes)
        mean += sum(float(batch[0].mean()) * weight for batch, weight in zip(group, group.weights, strict=True))
    assert mean / processes == pytest.approx(float(torch.cat(values).mean()), abs=1e-5)
    for number, value in enumerate(values):
        parts = [process[number] for process in of_processes]
        assert all(len(part.batch[0]) == len(part.batch[1]) for part in parts)
        whole = parts[0].batch[0] if parts[0].copies > 1 else torch.cat([part.batch[0] for part in parts])
        assert torch.equal(whole, value)


@dataclasses.dataclass
class Record:
    features: Tensor
    number: int


def batch_of(values: Tensor, kind: str) -> Any:
    """Samples whose features are all their number."""
    features = [value.repeat(5) for value in values]
    sequences = [value.repeat(1 + number % 4) for number, value in enumerate(values)]
    numbers = [int(value) for value in values]
    forms: dict[str, Any] = {
        "lists": (features, numbers),
        "lists of tensors": [features, [*values]],
        "sequences": (sequences, values),
        "labels stacked": (features, values),
        "targets": {"images": features, "targets": [{"label": value[None], "name": str(value)} for value in values]},
        "nested": ({"ids": torch.stack(features), "temperature": 0.5}, [torch.stack(features)], values),
        "names": (values, [str(number) for number in numbers], [None] * len(numbers)),
        "mappings": [{"x": value.repeat(5), "y": value[None]} for value in values],
        "records": [Record(value.repeat(5), number) for value, number in zip(values, numbers, strict=True)],
    }
    return forms[kind]


@pytest.mark.parametrize(
    "kind",
    ["lists", "lists of tensors", "sequences", "labels stacked", "targets", "nested", "names", "mappings", "records"],
)
@given(samples=st.integers(1, 9), processes=st.integers(2, 4))
@settings(max_examples=12)
def test_batches_of_any_form_are_split_between_samples(kind: str, samples: int, processes: int) -> None:
    assume(kind != "labels stacked" or samples != 5)  # Each sample has as many features.
    values = torch.arange(10.0, 10.0 + samples)
    parts = split(batch_of(values, kind), processes)
    bounds = [samples * number // processes for number in range(processes + 1)]
    for part, (start, end) in zip(parts, itertools.pairwise(bounds), strict=True):
        of_part = values if samples < processes else values[start:end]
        if kind == "sequences" and samples >= processes:
            expected = [value.repeat(1 + (start + number) % 4) for number, value in enumerate(of_part)]
            torch.testing.assert_close(part.batch, (expected, of_part), rtol=0, atol=0)
        else:
            torch.testing.assert_close(of_tensors(part.batch), of_tensors(batch_of(of_part, kind)), rtol=0, atol=0)


@pytest.mark.parametrize("boxes", [2, 3])
def test_mappings_in_a_list_are_samples_whatever_their_tensors_hold(boxes: int) -> None:
    targets = [{"boxes": torch.full((boxes, 4), float(number)), "labels": torch.zeros(boxes)} for number in range(2)]
    for number, part in enumerate(split((torch.zeros(2, 3, 8, 8), targets), 2)):
        torch.testing.assert_close(part.batch, (torch.zeros(1, 3, 8, 8), targets[number : number + 1]))


@pytest.mark.parametrize("kind", ["mappings", "records"])
@given(samples=st.integers(1, 9))
def test_a_list_of_samples_is_as_many_and_stacked_ones_in_a_list_are_not(kind: str, samples: int) -> None:
    listed = batch_of(torch.arange(float(samples)), kind)
    assert sample_count(listed) == samples and sample_count(first_sample(listed)) == 1
    stacked = {"x": torch.zeros(samples, 5), "y": torch.zeros(samples)}
    for batch in ([stacked], (stacked, stacked), ({"x": torch.zeros(samples, 5), "rate": 0.5}, {"y": stacked["y"]})):
        assert sample_count(batch) == samples


def of_tensors(batch: Any) -> list[Any]:
    """All that is in a batch, texts and None as words of a known kind."""
    return [leaf if isinstance(leaf, Tensor | int | float) else hash(str(leaf)) for leaf in leaves_in(batch)]


@pytest.mark.parametrize("kind", ["sparse", "jagged", "packed"])
def test_what_cannot_be_split_is_told(kind: str) -> None:
    sequences = [torch.ones(1) for _ in range(4)]  # As many numbers as samples.
    inputs = {
        "sparse": lambda: torch.eye(4).to_sparse(),
        "jagged": lambda: torch.nested.nested_tensor(sequences, layout=torch.jagged),
        "packed": lambda: torch.nn.utils.rnn.pack_sequence(sequences),
    }[kind]()
    with pytest.raises(SeekingError, match=r"holds a (sparse or nested tensor|PackedSequence), which cannot be split"):
        split((inputs, torch.arange(4)), 2)


def test_batches_that_do_not_come_from_a_loader_weigh_as_their_samples() -> None:
    group = MicroBatches.of([DATA[:6], DATA[:2]], 2)
    assert (group.weights, group.samples) == ([0.75, 0.25], 16)
    assert MicroBatches.of(group, 2) is group
    assert MicroBatches([Part([], 0)], 1).weights == [0]


def test_a_prepared_loader_of_accelerate_is_taken_as_it_is() -> None:
    from accelerate import Accelerator

    prepared = Accelerator(cpu=True).prepare(DataLoader(DATA, 4))
    assert [part.batch[1].tolist() for part in prepare(prepared, "train_loader", 0, 1, 0).start()] == [
        y.tolist() for _, y in DataLoader(DATA, 4)
    ]
