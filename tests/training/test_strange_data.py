"""What data may do: labels that do not count, labels of other forms, items that end the pass or the program."""

import dataclasses
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import PLAIN
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, Dataset

from seeking import SeekingError, Trainer
from seeking.errors import EXIT_SAVED, LoadingError
from seeking.termination import ending_by_signals
from seeking.training.batches import draw
from seeking.training.loaders import prepare
from seeking.training.objective import Classification

X = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))


class Items(Dataset[Any]):
    def __init__(self, labels: Any, at: int = -1, action: Any = None) -> None:
        self.labels, self.at, self.action = labels, at, action

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        if index == self.at:
            self.action()
        return X[index], self.labels[index]


@given(labels=st.lists(st.sampled_from([-100, 0, 1, 2]), min_size=1, max_size=12), batch_size=st.integers(1, 5))
@settings(max_examples=25)
def test_ignored_labels_count_neither_in_training_nor_in_evaluation(labels: list[int], batch_size: int) -> None:
    model, objective = nn.Linear(5, 3), Classification()
    torch.nn.init.ones_(model.bias)
    x, y = X[: len(labels)], torch.tensor(labels)
    parts = [objective.evaluate(model, part) for part in zip(x.split(batch_size), y.split(batch_size), strict=True)]
    values = {name: torch.cat([part[name] for part in parts]).float() for name in ("loss", "accuracy")}
    counted = y != -100
    assert len(values["loss"]) == len(values["accuracy"]) == counted.sum()
    if counted.any():
        torch.testing.assert_close(values["loss"].mean(), F.cross_entropy(model(x), y))
        right = (model(x).argmax(1) == y)[counted].float().mean()
        torch.testing.assert_close(values["accuracy"].mean(), right)


def fit(train: Any, evaluation: Any = None, **changes: Any) -> Trainer:
    loaders = {"train_loader": DataLoader(train, 4), "eval_loader": DataLoader(evaluation or train, 4)}
    config = dataclasses.replace(PLAIN, epochs=1, **changes)
    torch.manual_seed(0)
    trainer = Trainer(nn.Linear(5, 3), **loaders, config=config)
    trainer.fit()
    return trainer


def test_a_first_batch_without_a_sample_is_refused() -> None:
    with pytest.raises(SeekingError, match="the first batch of the training data has no sample"):
        Trainer(nn.Linear(5, 3), train_loader=[(X[:0], torch.zeros(0, dtype=torch.int64))], config=PLAIN)


def test_an_evaluation_in_which_no_sample_counts_is_an_error() -> None:
    with pytest.raises(SeekingError, match="no sample counts, since all labels are -100"):
        fit(Items(torch.arange(12) % 3), Items(torch.full((12,), -100)))


LABELS = torch.arange(12) % 3


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        (F.one_hot(LABELS), r"int64 of shape \[4, 3\].*targets.argmax\(1\)"),
        (LABELS[:, None], r"squeeze\(1\)"),
        (LABELS.float(), "float32.*loss_fn"),
        (torch.rand(12, 1), "loss_fn"),
        (torch.rand(12, 7), "loss_fn"),
    ],
)
@pytest.mark.parametrize("evaluating", [False, True])
def test_labels_of_another_form_are_refused_before_training(labels: Tensor, advice: str, evaluating: bool) -> None:
    data = Items(LABELS), Items(labels)
    with pytest.raises(SeekingError, match=advice):
        fit(*(data if evaluating else data[::-1]))


def test_probabilities_of_classes_train_and_are_evaluated() -> None:
    soft = Items(F.one_hot(LABELS).float() * 0.8 + 0.2 / 3)
    accuracies = [fit(Items(LABELS), data).scores.latest["base"]["accuracy"] for data in (soft, Items(LABELS))]
    assert accuracies[0] == accuracies[1]
    fit(soft, soft)


def end_pass() -> None:
    raise StopIteration


class Pictures(NamedTuple):
    left: Tensor
    right: Tensor


FORMS: dict[str, tuple[Any, Callable[[Any], Tensor]]] = {
    "tuple": ((X[:4], X[4:8]), lambda x: x[0] + x[1]),
    "list": ([X[:4], X[4:8], X[8:]], lambda x: torch.stack(list(x)).mean(0)),
    "named tuple": (Pictures(X[:4], X[4:8]), lambda x: x.left - x.right),
    "mapping": ({"image": X[:4], "id": torch.arange(4)}, lambda x: x["image"]),
    "packed sequence": (pack_sequence([*X[:12].split(3)]), lambda x: pad_packed_sequence(x)[0].mean(0)),
    "texts": (["a", "bcd", "ef", "g"], lambda x: torch.tensor([[float(len(text))] * 5 for text in x])),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_classifier_gets_the_inputs_in_any_form_as_in_a_plain_loop(form: str) -> None:
    inputs, prepared = FORMS[form]

    class Prepared(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(5, width), nn.Linear(width, 3)

        def forward(self, x: Any) -> Tensor:
            leave: Tensor = self.leave(self.enter(prepared(x)).relu())
            return leave

    def trained(**options: Any) -> list[Tensor]:
        torch.manual_seed(0)
        loader = [(inputs, torch.tensor([0, 1, 2, 0]))] * 3
        models = Prepared(4), Prepared(6)
        Trainer(*models, train_loader=loader, eval_loader=loader, **options, config=PLAIN).fit()
        return [parameter for model in models for parameter in model.parameters()]

    by_hand = trained(loss_fn=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))
    assert all(torch.equal(*pair) for pair in zip(trained(), by_hand, strict=True))


def test_a_classifier_that_takes_more_than_the_inputs_is_told_how() -> None:
    class Two(nn.Linear):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(left + right)

    with pytest.raises(SeekingError, match=r"missing 1 required.*give the Trainer a loss_fn.*model\(\*batch\[0\]\)"):
        Trainer(Two(5, 3), train_loader=[((X, X), torch.arange(12) % 3)], config=PLAIN)

    class Wrong(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + None)  # type: ignore[operator]

    with pytest.raises(SeekingError, match=r"unsupported operand type\(s\) for \+.*'NoneType'$"):
        Trainer(Wrong(5, 3), train_loader=[(X, torch.arange(12) % 3)], config=PLAIN)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("skip", [0, 1])
def test_an_item_cannot_end_a_pass(workers: int, skip: int) -> None:
    loader = prepare(DataLoader(Items(LABELS, 9, end_pass), 4, num_workers=workers), "loader", 0, 1, 0)
    with pytest.raises(LoadingError, match="an item of the data set raised StopIteration"):
        list(draw(loader, torch.device("cpu"), skip))
    whole = prepare(DataLoader(Items(LABELS), 4, num_workers=workers), "loader", 0, 1, 0)
    assert len(list(draw(whole, torch.device("cpu"), skip))) == 3 - skip


@pytest.mark.parametrize("evaluating", [False, True])
def test_an_item_cannot_end_the_program_as_if_all_were_well(evaluating: bool) -> None:
    data = Items(LABELS), Items(LABELS, 9, lambda: sys.exit(0))
    with pytest.raises(LoadingError, match=r"the data called sys.exit\(0\)"):
        fit(*(data if evaluating else data[::-1]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_program_while_a_batch_is_loaded_is_no_fault_of_the_data(number: int) -> None:
    loader = prepare(DataLoader(Items(LABELS, 1, lambda: signal.raise_signal(number)), 4), "loader", 0, 1, 0)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        with pytest.raises(SystemExit) as ended, ending_by_signals():
            list(draw(loader, torch.device("cpu")))
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert ended.value.code == EXIT_SAVED


def many_lines() -> None:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("the file is bad:\n  line 3\nhas no end") from error


class Strange(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and\n{second}")


def strange() -> None:
    raise Strange(1, 2)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("action", "text"),
    [
        (many_lines, "ValueError: the file is bad: line 3 has no end"),
        (strange, "Strange: 1 and 2"),
        (lambda: [][0], "IndexError: list index out of range"),
        (lambda: (_ for _ in ()).throw(OSError), "OSError"),
    ],
)
def test_errors_of_the_data_are_one_line(action: Any, text: str, workers: int) -> None:
    loader = prepare(DataLoader(Items(LABELS, 9, action), 4, num_workers=workers), "loader", 0, 1, 0)
    with pytest.raises(LoadingError) as caught:
        list(draw(loader, torch.device("cpu")))
    message = str(caught.value)
    assert "\n" not in message
    assert message == f"cannot load the next batch: {text}" or (workers and action is strange and "1 and 2" in message)


def form(pairs: list[tuple[Tensor, int]], kind: str) -> Any:
    xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
    forms: dict[str, Any] = {
        "stacked": (torch.stack(xs), torch.tensor(ys)),
        "nested": ((torch.stack(xs), torch.stack(xs)), torch.tensor(ys)),
        "nested alone": [[torch.stack(xs), torch.stack(xs)], [torch.tensor(ys)] * 2],
        "lists": (xs, ys),
        "lists of tensors": [xs, [torch.tensor(y) for y in ys]],
        "mapping": {"images": xs, "targets": [{"label": torch.tensor([y])} for y in ys]},
        "labels stacked": (xs, torch.tensor(ys)),
    }
    return forms[kind]


def unformed(batch: Any) -> tuple[Tensor, Tensor]:
    xs, ys = batch.values() if isinstance(batch, dict) else batch
    if isinstance(ys, list) and isinstance(ys[0], dict):
        ys = torch.cat([y["label"] for y in ys])
    elif isinstance(ys, list):
        ys = ys[0] if isinstance(ys[0], Tensor) and ys[0].ndim else torch.tensor([int(y) for y in ys])
    xs = xs if isinstance(xs, Tensor) else xs[0] if xs[0].ndim == 2 else torch.stack([*xs])
    return xs, ys


@pytest.mark.parametrize(
    "kind", ["stacked", "nested", "nested alone", "lists", "lists of tensors", "mapping", "labels stacked"]
)
def test_samples_weigh_the_same_in_batches_of_any_form(kind: str) -> None:
    pairs = [(x, number % 3) for number, x in enumerate(X)]
    batches = [form(pairs[:9], kind), form(pairs[9:], kind)]
    models = [nn.Linear(5, 3) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())

    def loss(model: nn.Module, batch: Any) -> Tensor:
        xs, ys = unformed(batch)
        return F.cross_entropy(model(xs), ys)

    config = dataclasses.replace(PLAIN, epochs=1, accumulate=2, schedule="constant", warmup_epochs=0)
    options: dict[str, Any] = {"loss_fn": loss, "optimizer": lambda model: torch.optim.SGD(model.parameters(), 0.1)}
    Trainer(models[0], None, train_loader=batches, config=config, **options).fit()
    optimizer = torch.optim.SGD(models[1].parameters(), 0.1)
    loss(models[1], form(pairs, kind)).backward()
    optimizer.step()
    for mine, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)
