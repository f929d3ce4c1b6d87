"""Runs that are asked to stop, or fail, lose no trained step."""

import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs import PLAIN
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import seeking
from seeking import SeekingError, Trainer
from seeking.checkpointing import snapshot
from seeking.training import interrupts
from seeking.training.interrupts import STOPPING, Requests

X, Y = torch.randn(32, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


class Samples(Dataset[Any]):
    """Does something as it reads one of its samples."""

    def __init__(self, index: int = -1, action: Callable[[], None] = lambda: None) -> None:
        self.index, self.action = index, action

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> Any:
        if index == self.index:
            self.action()
        return X[index], Y[index]


def trainer(output: Path, train: Any, evaluation: Any = None, **kwargs: Any) -> Trainer:
    torch.manual_seed(0)
    models = (nn.Sequential(nn.Linear(8, w), nn.ReLU(), nn.Linear(w, 3)) for w in (8, 16))
    loaders = {"train_loader": train, "eval_loader": evaluation}
    return Trainer(*models, **loaders, config=PLAIN, output=output, resume=True, **kwargs)


def saved(output: Path) -> str:
    return snapshot.list_checkpoints(output / "checkpoints")[0].name


def hang(process: int) -> None:
    os.kill(process, signal.SIGTERM)
    time.sleep(1000)


def ignore_signals(number: int) -> None:
    for ignored in STOPPING:
        signal.signal(ignored, signal.SIG_IGN)


WORKERS = [
    0,
    *(pytest.param(workers, marks=pytest.mark.slow) for workers in (1, 2)),
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "PATIENCE_SECONDS", 0.05)


@pytest.mark.parametrize("ignoring", [False, True])
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("evaluating", [False, True])
def test_a_stop_does_not_wait_for_a_batch_that_hangs(
    evaluating: bool, workers: int, ignoring: bool, tmp_path: Path
) -> None:
    hanging = Samples(20, functools.partial(hang, os.getpid()))
    options: dict[str, Any] = {"num_workers": workers, "worker_init_fn": ignore_signals if ignoring else None}
    loaders = DataLoader(hanging if not evaluating else Samples(), 4), DataLoader(Samples(), 4)
    if evaluating:
        loaders = loaders[0], DataLoader(hanging, 4, **options)
    else:
        loaders = DataLoader(hanging, 4, **options), loaders[1]
    run = trainer(tmp_path / "run", *loaders)
    with pytest.raises(SystemExit) as stopped:
        run.fit()
    assert stopped.value.code == interrupts.EXIT_SAVED
    steps = sum(row["kind"] == "step" for row in run.record.rows())
    assert saved(tmp_path / "run") == f"step-{steps:08}"
    assert steps == 8 if evaluating else steps == 5 or (workers and 0 < steps < 5), "workers read ahead"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
def test_workers_that_a_stop_has_ended_are_no_error(tmp_path: Path) -> None:
    def end_workers() -> None:
        os.kill(parent, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGKILL)

    parent = os.getpid()
    run = trainer(tmp_path / "run", DataLoader(Samples(20, end_workers), 4, num_workers=1))
    with pytest.raises(SystemExit):
        run.fit()
    assert saved(tmp_path / "run") == f"step-{sum(row['kind'] == 'step' for row in run.record.rows()):08}"


class Failing:
    """A loss that raises once it has been computed so often on one of the samples."""

    def __init__(self, sample: int | None, calls: int = 1) -> None:
        self.sample, self.calls = sample, calls

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        if self.sample is not None and model.training and len(batch[0]) and (batch[0] == X[self.sample]).all(1).any():
            self.calls -= 1
            if not self.calls:
                raise ValueError("no loss for this sample")
        return F.cross_entropy(model(batch[0]), batch[1])


def test_a_loss_that_raises_loses_no_step_and_the_run_resumes_as_if_it_had_not(tmp_path: Path) -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Samples(), 4, shuffle=True)

    with pytest.raises(ValueError, match="no loss for this sample") as raised:
        trainer(tmp_path / "run", loader(), loss_fn=Failing(20)).fit()
    notes = raised.value.__notes__
    step = int(saved(tmp_path / "run").removeprefix("step-"))
    assert f"in batch {step + 1} of epoch 1" in notes
    assert any(f"the run is saved at step {step}" in note for note in notes)
    resumed = trainer(tmp_path / "run", loader(), loss_fn=Failing(None)).fit()
    whole = trainer(tmp_path / "whole", loader(), loss_fn=Failing(None)).fit()
    assert resumed.history == whole.history


def test_an_error_after_the_step_of_one_model_ends_the_batch(tmp_path: Path) -> None:
    kwargs = {"train_loader": DataLoader(Samples(), 4), "condition": seeking.Always()}
    run = trainer(tmp_path / "run", kwargs.pop("train_loader"), loss_fn=Failing(20, calls=2), **kwargs)
    with pytest.raises(ValueError, match="no loss"):
        run.fit()
    assert saved(tmp_path / "run") == "step-00000006"
    rows = [row for row in run.record.rows() if row["kind"] == "step"]
    assert "motivated_loss" in rows[4] and "motivated_loss" not in rows[5]


def test_an_error_within_an_update_of_the_weights_saves_nothing(tmp_path: Path) -> None:
    class Breaking(torch.optim.SGD):
        steps = 0

        def step(self, closure: Any = None) -> Any:
            self.steps += 1
            if self.steps == 4:
                raise RuntimeError("out of memory")
            return super().step(closure)

    run = trainer(
        tmp_path / "run",
        DataLoader(Samples(), 4),
        optimizer=lambda model: Breaking(model.parameters(), lr=0.1),
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        run.fit()
    assert saved(tmp_path / "run") == "step-00000000"


@pytest.mark.parametrize(("label", "evaluating"), [(3, False), (-1, False), (9, True)])
def test_a_label_out_of_range_is_named(label: int, evaluating: bool, tmp_path: Path) -> None:
    wrong = [(X[index], torch.tensor(label) if index == 21 else Y[index]) for index in range(32)]
    loaders = [DataLoader(wrong, 4), DataLoader(Samples(), 4)]
    where = "in the evaluation of the base model" if evaluating else "in batch 6 of epoch 1"
    message = f"label {label} of sample 1 of the batch is out of range; the model has 3 outputs.*; {where}; the run is "
    with pytest.raises(SeekingError, match=message):
        trainer(tmp_path / "run", *loaders[:: -1 if evaluating else 1]).fit()
    assert saved(tmp_path / "run") == f"step-{8 if evaluating else 5:08}"


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_lets_the_step_be_finished_and_saved_unless_it_is_ignored(
    number: int, ignored: bool, tmp_path: Path
) -> None:
    before = signal.signal(number, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        train = DataLoader(Samples(9, lambda: signal.raise_signal(number)), batch_size=4)
        with _expected(None) if ignored else pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
            trainer(tmp_path / "run", train).fit()
    finally:
        signal.signal(number, before)
    if ignored:
        return
    assert isinstance(ended.value, KeyboardInterrupt) if number == signal.SIGINT else ended.value.code == 75
    assert saved(tmp_path / "run") == "step-00000003"


@pytest.mark.parametrize("asked", [*STOPPING, None])
def test_all_processes_stop_as_the_one_that_is_asked_to(asked: int | None) -> None:
    class Accelerator(SimpleNamespace):
        num_processes, device = 2, "cpu"

        def reduce(self, flags: Tensor, how: str) -> Tensor:
            return flags + torch.tensor([float(asked == number) for number in STOPPING] + [0.0])

    own = Requests(Accelerator(), due=lambda: False)
    other = Requests(Accelerator(), due=lambda: True)
    other.signal = asked
    own.agree([(a + b) / 2 for a, b in zip(own.requested(), other.requested(), strict=True)])
    assert own.save
    for stop in (own.stop_after_batch, own.stop_now):
        with _expected(asked):
            stop()


def _expected(asked: int | None) -> Any:
    if asked is None:
        return pytest.MonkeyPatch.context()
    return pytest.raises(interrupts.Stopped, check=lambda stopped: stopped.signal == asked)


def _batches() -> Iterator[tuple[str, Any, str]]:
    yield "mapping", {"image": X[0], "label": Y[0]}, r"a dict with image, label.*loss_fn.*batch\['label'\]"
    yield "tensor", X[0], "a Tensor, not"
    yield "text", (X[0], "cat"), "a list of Tensor, tuple"
    yield "alone", (X[0],), "a list of Tensor"


@pytest.mark.parametrize(("sample", "message"), [case[1:] for case in _batches()], ids=[c[0] for c in _batches()])
def test_batches_without_labels_are_refused_before_training(sample: Any, message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        Trainer(nn.Linear(8, 3), train_loader=DataLoader([sample] * 8, 4), config=PLAIN)


@pytest.mark.parametrize(("count", "refused"), [(33, True), (32, False), (34, False)])
def test_a_last_batch_of_one_sample_is_refused_where_a_model_cannot_train_on_it(count: int, refused: bool) -> None:
    data = [(X[index % 32], Y[index % 32]) for index in range(count)]
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    Trainer(nn.Linear(8, 3), train_loader=DataLoader(data, 4), config=PLAIN)
    Trainer(model, train_loader=DataLoader(data, 4, drop_last=True), config=PLAIN)
    if refused:
        with pytest.raises(SeekingError, match=r"last batch has a single sample.*drop_last"):
            Trainer(model, train_loader=DataLoader(data, 4), config=PLAIN)
    else:
        Trainer(model, train_loader=DataLoader(data, 4), config=PLAIN)
