"""A resumed run is the uninterrupted run, bit for bit."""

import dataclasses
import functools
import itertools
import os
import random
import shutil
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from runs import CONFIG, OneStage, batches, images, steps, stop_at, two_models
from safetensors.torch import load_file
from timm.optim import list_optimizers
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from torch.utils.data import DataLoader, Dataset, IterableDataset

import seeking
from seeking import RunError, SeekingError, TrainConfig, Trainer
from seeking.checkpointing import metrics_log, run_dir, snapshot
from seeking.checkpointing.resume import restore_state
from seeking.checkpointing.weights import read_metadata, write_tensors
from seeking.checkpointing.writer import BackgroundWriter
from seeking.errors import RunWarning
from seeking.training import Result, RunFolder, evaluation
from seeking.training.optim import load_optimizer_state
from seeking.weights_map import tensors

EVERY_STEP = dataclasses.replace(CONFIG, save_every="1")


class Killed(Exception):
    """Stands for whatever ends a program at once."""


def whole_run(make: Any, output: Path, config: TrainConfig, **kwargs: Any) -> tuple[Trainer, Result]:
    trainer = make(output=output, config=config, **kwargs)
    return trainer, trainer.fit()


def interrupted_run(make: Any, output: Path, config: TrainConfig, at: list[int]) -> tuple[Trainer, Result]:
    """The same run, stopped after each of these steps and resumed by a new program's objects."""
    for step in at:
        with pytest.raises(KeyboardInterrupt):
            make(output=output, config=config, resume=True, listeners=[stop_at(step)]).fit()
        # What another program would find its generators at.
        torch.manual_seed(step + 100)
        random.seed(step)
        np.random.seed(step)
    trainer = make(output=output, config=config, resume=True)
    return trainer, trainer.fit()


def same(run: tuple[Trainer, Result], other: tuple[Trainer, Result], outputs: tuple[Path, Path]) -> None:
    """Weights, buffers, metrics, decisions, costs and what is on disk."""
    assert run[1].history == other[1].history
    assert run[1].metrics == other[1].metrics
    assert run[1].best == other[1].best
    assert run[1].cost == other[1].cost
    for role, learner in run[0].learners.items():
        theirs = tensors(other[0].learners[role].module)
        for name, tensor in tensors(learner.module).items():
            assert torch.equal(tensor, theirs[name]), (role, name)
        for which in ("last", "best"):
            files = [load_file(output / f"{role}.{which}.safetensors") for output in outputs]
            assert files[0].keys() == files[1].keys()
            assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())
    rows = [(output / "metrics.jsonl").read_text() for output in outputs]
    assert rows[0] == rows[1]


def make(**kwargs: Any) -> Trainer:
    torch.manual_seed(0)
    return Trainer(*two_models(), **{**batches(padding=1, flip=True), **kwargs})


def make_plain(**kwargs: Any) -> Trainer:
    """For what does not depend on the models: without convolutions and norms."""
    torch.manual_seed(0)
    return Trainer(WithDropout(8), WithDropout(12), **batches(), **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("every", [2, 9])
def test_evaluating_seldom_changes_the_record_alone(every: int, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=5)
    seldom = dataclasses.replace(config, eval_every=every)
    outputs = tmp_path / "whole", tmp_path / "parts"
    (each, result), whole = whole_run(make, tmp_path / "each", config), whole_run(make, outputs[0], seldom)
    for role, learner in each.learners.items():
        theirs = tensors(whole[0].learners[role].module)
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in tensors(learner.module).items())
    assert whole[1].metrics == result.metrics
    expected = [
        row for row in result.history if row["kind"] == "eval" and (row["epoch"] % every == 0 or row["epoch"] == 5)
    ]
    assert [row for row in whole[1].history if row["kind"] == "eval"] == expected
    same(whole, interrupted_run(make, outputs[1], seldom, [7, 20]), outputs)


def test_a_run_that_is_resumed_to_end_earlier_is_evaluated_where_it_ends(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=4, eval_every=2)
    with pytest.raises(KeyboardInterrupt):
        make(output=tmp_path / "run", config=config, listeners=[stop_at(19)]).fit()
    shorter = dataclasses.replace(config, epochs=3)
    three = make(output=tmp_path / "run", config=shorter, resume=True).fit()
    assert [row["epoch"] for row in three.history if row["kind"] == "eval"] == [2, 3]
    assert three.metrics.keys() == {"base", "motivated"}
    for name, metrics in three.metrics.items():
        assert three.best[name]["accuracy"] >= metrics["accuracy"]
        assert read_metadata(tmp_path / "run" / f"{name}.best.safetensors")["epoch"] == three.best[name]["epoch"]
    again = make(output=tmp_path / "run", config=shorter, resume=True).fit()
    assert (again.metrics, again.history, again.best) == (three.metrics, three.history, three.best)


# Every two of them together.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "state", "optimizer"),
    [
        ("shared", "separate", "sgd"),
        ("private", "separate", "adamw"),
        ("recalibrated", "separate", "sgd"),
        ("shared", "shared", "adamw"),
        ("private", "shared", "sgd"),
        ("recalibrated", "shared", "adamw"),
    ],
)
def test_every_policy(norm: str, state: str, optimizer: str, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, norm=norm, optimizer_state=state, optimizer=optimizer, lr=0.01)
    outputs = tmp_path / "whole", tmp_path / "parts"
    whole = whole_run(make, outputs[0], config)
    assert whole[1].cost.motivated_batches
    parts = interrupted_run(make, outputs[1], config, [1, 5, 8])
    same(whole, parts, outputs)


CONDITIONS = ["decrease:1", "random:0.5", "matched(decrease:1)", "every:2", "after:3", "always", "never"]


@pytest.mark.slow
@pytest.mark.parametrize("on", ["same", "next"])
@pytest.mark.parametrize("condition", [*CONDITIONS, "~decrease:1 & (every:2 | random:0.3)"])
def test_every_condition(condition: str, on: str, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, condition=condition, on=on, epochs=3)
    outputs = tmp_path / "whole", tmp_path / "parts"
    whole = whole_run(make_plain, outputs[0], config)
    same(whole, interrupted_run(make_plain, outputs[1], config, [0, 4, 13]), outputs)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "step", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_every_schedule(schedule: str, warmup: float, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, schedule=schedule, warmup_epochs=warmup, accumulate=2)
    outputs = tmp_path / "whole", tmp_path / "parts"
    whole = whole_run(make_plain, outputs[0], config)
    same(whole, interrupted_run(make_plain, outputs[1], config, [0, 2, 4]), outputs)


@pytest.mark.slow
@pytest.mark.parametrize("gap", [1, 5, 7])
def test_at_any_steps(gap: int, tmp_path: Path) -> None:
    """At every one, and at some that are in another place of each of three epochs."""
    config = dataclasses.replace(CONFIG, epochs=3, seed=gap)
    outputs = tmp_path / "whole", tmp_path / "parts"
    same(whole_run(make, outputs[0], config), interrupted_run(make, outputs[1], config, [*range(0, 18, gap)]), outputs)


class Window(seeking.Condition):
    """A user's own, which remembers what no number is."""

    def __init__(self) -> None:
        self.last: list[float] = []

    def holds(self, loss: float, **signals: float) -> bool:
        self.last = [*self.last, loss][-3:]
        return loss <= min(self.last)

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last = state["last"]


@pytest.mark.slow
@pytest.mark.parametrize("composed", [False, True])
def test_a_condition_of_ones_own(composed: bool, tmp_path: Path) -> None:
    def make_own(**kwargs: Any) -> Trainer:
        own = Window()
        return make(condition=~(own & seeking.Every(3)) & own if composed else own, **kwargs)

    outputs = tmp_path / "whole", tmp_path / "parts"
    same(whole_run(make_own, outputs[0], CONFIG), interrupted_run(make_own, outputs[1], CONFIG, [2, 7]), outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["OneCycleLR", "CosineAnnealingLR"])
def test_more_epochs_with_a_schedule_of_ones_own(name: str, tmp_path: Path) -> None:
    schedules = {
        "OneCycleLR": lambda optimizer, steps: OneCycleLR(optimizer, 0.1, total_steps=steps),
        "CosineAnnealingLR": lambda optimizer, steps: CosineAnnealingLR(optimizer, steps),
    }
    longer = dataclasses.replace(CONFIG, epochs=4)
    make(output=tmp_path / "run", config=CONFIG, schedule=schedules[name]).fit()
    more = make(output=tmp_path / "run", config=longer, schedule=schedules[name], resume=True).fit()
    whole = make(config=longer, schedule=schedules[name]).fit()
    rates = [[row["lr"] for row in steps(result)] for result in (more, whole)]
    assert rates[0][13:] == rates[1][13:]


def seed_all() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


class Noise:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(3)

    def __call__(self) -> float:
        return self.generator.normal()


class Noisy(Dataset[Any]):
    """Draws from every global generator, and from one of its own, for each item."""

    def __init__(self) -> None:
        self.images = images(24)
        self.augment = {"noise": [Noise()]}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        pixels = self.images.pixels[index].float() / 255
        noise = torch.randn(()) + random.gauss(0, 1) + np.random.randn() + self.augment["noise"][0]()
        return pixels + 0.05 * noise, self.images.labels[index]


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.items = Noisy()

    def __len__(self) -> int:
        return 24

    def __iter__(self) -> Any:
        info = torch.utils.data.get_worker_info()
        part = (info.id, None, info.num_workers) if info else (None,)
        yield from (self.items[index] for index in itertools.islice(range(24), *part))


class WithDropout(nn.Module):
    """Draws from PyTorch's generator in between the batches, and from one of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(192, width), nn.Linear(width, 4)
        self.own = torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + 0.01 * torch.randn(x.shape, generator=self.own)
        return self.out(F.dropout(self.hidden(x.flatten(1)).relu(), 0.3, self.training))


@pytest.mark.slow
# A list has no workers. Where there are some, they draw for the items, and this process for the order: weighted, as
# shuffled, from the global generator.
@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        *((kind, 0) for kind in ("shuffled", "own generator", "in order", "iterable", "list", "weighted")),
        *((kind, 2) for kind in ("shuffled", "own generator", "iterable")),
    ],
)
def test_data_that_draw_as_they_please(kind: str, workers: int, tmp_path: Path) -> None:

    def make(**kwargs: Any) -> Trainer:
        seed_all()
        models = WithDropout(8), WithDropout(12)
        options: dict[str, Any] = {"batch_size": 4, "num_workers": workers, "multiprocessing_context": None}
        if kind == "shuffled":
            loader: Any = DataLoader(Noisy(), shuffle=True, **options)
        elif kind == "own generator":
            loader = DataLoader(Noisy(), shuffle=True, generator=torch.Generator().manual_seed(5), **options)
        elif kind == "weighted":
            sampler = torch.utils.data.WeightedRandomSampler([1.0 + i for i in range(24)], 24)
            loader = DataLoader(Noisy(), sampler=sampler, **options)
        elif kind == "iterable":
            loader = DataLoader(Stream(), **options)
        elif kind == "list":
            loader = list(DataLoader(Noisy(), batch_size=4))
        else:
            loader = DataLoader(Noisy(), **options)
        return Trainer(*models, train_loader=loader, eval_loader=DataLoader(Noisy(), 8, shuffle=True), **kwargs)

    outputs = tmp_path / "whole", tmp_path / "parts"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process.*is multi-threaded", DeprecationWarning)
        whole = whole_run(make, outputs[0], CONFIG)
        parts = interrupted_run(make, outputs[1], CONFIG, [2, 7] if workers else [0, 2, 5, 7])
    same(whole, parts, outputs)


def test_functions_that_draw(tmp_path: Path) -> None:
    """A collate function (as of Mixup) and a loss function (as of diffusion) with generators of their own."""

    def make_drawing(**kwargs: Any) -> Trainer:
        seed_all()
        mixing, noise = np.random.default_rng(1), torch.Generator().manual_seed(1)

        def collate(drawn: np.random.Generator, items: list[Any]) -> Any:
            x, y = torch.utils.data.default_collate(items)
            return x * float(drawn.uniform()), y

        def loss_fn(model: nn.Module, batch: Any) -> Tensor:
            x, y = batch
            return F.cross_entropy(model(x + 0.1 * torch.randn(x.shape, generator=noise)), y)

        loader = DataLoader(Noisy(), 4, collate_fn=functools.partial(collate, mixing))
        return Trainer(WithDropout(8), WithDropout(12), train_loader=loader, loss_fn=loss_fn, **kwargs)

    config = CONFIG
    whole = make_drawing(output=tmp_path / "whole", config=config).fit()
    with pytest.raises(KeyboardInterrupt):
        make_drawing(output=tmp_path / "parts", config=config, listeners=[stop_at(3)]).fit()
    parts = make_drawing(output=tmp_path / "parts", config=config, resume=True).fit()
    assert steps(whole) == steps(parts)


def test_epochs_shorter_than_promised(tmp_path: Path) -> None:
    class Fewer(Stream):
        def __iter__(self) -> Any:
            return itertools.islice(super().__iter__(), 17)

    def make_short(**kwargs: Any) -> Trainer:
        seed_all()
        loader = DataLoader(Fewer(), 4)
        return Trainer(WithDropout(8), WithDropout(12), train_loader=loader, eval_loader=loader, **kwargs)

    outputs = tmp_path / "whole", tmp_path / "parts"
    config = dataclasses.replace(CONFIG, epochs=3)
    with pytest.warns(RunWarning, match="epoch 1 had 5 steps, but the length of the loader is 6"):
        whole = whole_run(make_short, outputs[0], config)
    parts = interrupted_run(make_short, outputs[1], config, [3, 4, 7])
    same(whole, parts, outputs)


@pytest.mark.slow
def test_a_trainer_goes_on_where_it_was_and_never_over_another(tmp_path: Path) -> None:
    outputs = tmp_path / "whole", tmp_path / "parts"
    whole = whole_run(make, outputs[0], CONFIG)
    trainer = make(output=RunFolder(outputs[1], overwrite=True), config=CONFIG, listeners=[stop_at(4)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    stale = make(output=outputs[1], config=CONFIG, resume=True)
    trainer.listeners = []
    same(whole, (trainer, trainer.fit()), outputs)
    with pytest.raises(SeekingError, match="at step 5, and the newest checkpoint is step-00000012; make a new"):
        stale.fit()


def test_best_weights_that_cannot_be_written_are_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.5, 0.5, 0.9, 0.9, 0.7, 0.7, 0.6, 0.6])
    failed: list[str] = []

    def failing(content: Any, path: Path, about: Any, *rest: Any) -> None:
        if path.name == "base.best.safetensors" and about["epoch"] == 2 and not failed:
            failed.append(path.name)
            raise RunError(f"{path}: cannot be written (No space left on device)")
        write_tensors(content, path, about, *rest)

    monkeypatch.setattr(run_dir, "write_tensors", failing)
    trainer = make(output=tmp_path / "run", config=dataclasses.replace(EVERY_STEP, epochs=4))
    measure = evaluation.measure
    monkeypatch.setattr(evaluation, "measure", lambda *given: {**measure(*given), "accuracy": next(accuracies)})
    with pytest.warns(RunWarning, match="No space left"):
        result = trainer.fit()
    assert {name: best["epoch"] for name, best in result.best.items()} == {"base": 2, "motivated": 2}
    for name, best in result.best.items():
        assert read_metadata(tmp_path / "run" / f"{name}.best.safetensors") == best


def test_a_pipe_in_a_files_place_is_no_file(tmp_path: Path) -> None:
    """Opening one would wait for ever."""
    with pytest.raises(KeyboardInterrupt):
        make(output=tmp_path / "run", config=CONFIG, listeners=[stop_at(2)]).fit()
    os.mkfifo(tmp_path / "run" / "base.best.safetensors")
    with pytest.warns(RunWarning, match="not a file; the best weights are looked for anew"):
        make(output=tmp_path / "run", config=CONFIG, resume=True).fit()


def test_a_state_too_large_to_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_STATE_BYTES", 1000)
    with pytest.raises(RunError, match="remembers too much"):
        make(output=tmp_path / "run", config=CONFIG).fit()
    assert not snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")


def test_keys_that_hooks_add_to_a_models_state(tmp_path: Path) -> None:
    def make_hooked(**kwargs: Any) -> Trainer:
        trainer = make(**kwargs)
        trainer.pair.base._register_state_dict_hook(lambda m, state, p, meta: state.update(version=torch.tensor(1)))
        return trainer

    outputs = tmp_path / "whole", tmp_path / "parts"
    same(whole_run(make_hooked, outputs[0], CONFIG), interrupted_run(make_hooked, outputs[1], CONFIG, [3]), outputs)


def test_a_second_sigterm_waits_for_what_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers and launchers each pass one on."""
    write = snapshot.write

    def slowly(folder: Path, step: int, *rest: Any) -> None:
        if step:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        write(folder, step, *rest)

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(snapshot, "write", slowly)
    with pytest.raises(SystemExit):
        make(output=tmp_path / "run", config=CONFIG, listeners=[listen]).fit()
    assert snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")[0].name == "step-00000004"


@pytest.mark.slow
def test_saving_changes_nothing(tmp_path: Path) -> None:
    for state in ("separate", "shared"):
        config = dataclasses.replace(EVERY_STEP, optimizer_state=state)
        outputs = tmp_path / f"{state}-often", tmp_path / f"{state}-seldom"
        often = whole_run(make, outputs[0], config)
        seldom = whole_run(make, outputs[1], dataclasses.replace(config, save_every="1000"))
        same(often, seldom, outputs)
        alone = make(config=config)
        assert alone.fit().history == often[1].history


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_during_evaluation_evaluates_again(workers: int, tmp_path: Path) -> None:
    """Workers read ahead to the end of the epoch, and recalibration takes training batches."""

    class Interrupting(Dataset[Any]):
        calls = 0
        items = batches()["eval_loader"].dataset

        def __len__(self) -> int:
            return len(self.items)

        def __getitem__(self, index: int) -> Any:
            Interrupting.calls += 1
            if Interrupting.calls == 60:  # One batch is looked at beforehand; then the motivated model's first.
                signal.raise_signal(signal.SIGTERM)
            return self.items[index]

    config = dataclasses.replace(CONFIG, norm="recalibrated", recalibration_batches=3)

    def interrupting(**kwargs: Any) -> Trainer:
        ours = batches(padding=1, flip=True)["train_loader"]
        options = {"sampler": ours.sampler, "drop_last": True, "collate_fn": ours.collate_fn}
        train = DataLoader(ours.dataset, 8, num_workers=workers, **options)
        return make(train_loader=train, eval_loader=DataLoader(Interrupting(), 8), **kwargs)

    outputs = tmp_path / "whole", tmp_path / "parts"
    with pytest.raises(SystemExit) as stopped:
        interrupting(output=outputs[1], config=config).fit()
    assert stopped.value.code == 75
    assert snapshot.list_checkpoints(outputs[1] / "checkpoints")[0].name == "step-00000006"
    parts = whole_run(interrupting, outputs[1], config, resume=True)
    same(whole_run(interrupting, outputs[0], config), parts, outputs)


def test_a_second_interrupt_leaves_at_once(tmp_path: Path) -> None:
    def twice(row: dict[str, Any]) -> None:
        if row.get("step") == 4 and row["kind"] == "step":
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make(output=tmp_path / "run", config=CONFIG, listeners=[twice]).fit()
    assert [path.name for path in snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000000"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert make(output=tmp_path / "run", config=CONFIG, resume=True).fit().cost.batches == 12


def test_a_run_that_an_error_ends_loses_no_step(tmp_path: Path) -> None:
    def die(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == 9:
            raise Killed

    outputs = tmp_path / "whole", tmp_path / "parts"
    with pytest.raises(Killed):
        make(output=outputs[1], config=CONFIG, listeners=[die]).fit()
    assert len(list(metrics_log.read_rows(outputs[1] / "metrics.jsonl"))) == 12
    trainer = make(output=outputs[1], config=CONFIG, resume=True)
    assert trainer.progress.step == 10
    same(whole_run(make, outputs[0], CONFIG), (trainer, trainer.fit()), outputs)


def test_a_finished_run_is_finished(tmp_path: Path) -> None:
    output = tmp_path / "run"
    first = make(output=output, config=CONFIG).fit()
    again = make(output=output, config=CONFIG, resume=True).fit()
    assert again.summary() == first.summary()
    assert again.history == first.history


def test_more_epochs_follow_the_longer_schedule(tmp_path: Path) -> None:
    make(output=tmp_path / "run", config=CONFIG).fit()
    longer = dataclasses.replace(CONFIG, epochs=4)
    result = make(output=tmp_path / "run", config=longer, resume=True).fit()
    rates = [row["lr"] for row in steps(result)]
    assert len(rates) == 24
    expected = [row["lr"] for row in steps(make(config=longer).fit())]
    assert rates[12:] == pytest.approx(expected[12:])
    assert rates[:12] != pytest.approx(expected[:12])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(list_optimizers()))
def test_every_optimizer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.optim.kron.has_dynamo", False, raising=False)  # It compiles itself, for a minute.

    config = TrainConfig(epochs=1, optimizer=name, lr=1e-3, condition="every:2", verify=False)
    outputs = tmp_path / "whole", tmp_path / "parts"
    try:
        whole = whole_run(make_plain, outputs[0], config)
    except (SeekingError, RunError, AssertionError, TypeError, ImportError, RuntimeError) as error:
        pytest.skip(f"{name} does not train here: {error}")
    same(whole, interrupted_run(make_plain, outputs[1], config, [2]), outputs)


def test_other_options_models_or_data_are_refused_with_a_diff(tmp_path: Path) -> None:
    output = tmp_path / "run"
    make(output=output, config=CONFIG).fit()

    def refused(message: str, config: TrainConfig = CONFIG, **kwargs: Any) -> None:
        before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file() and path.name != ".lock"}
        with pytest.raises(SeekingError, match=message):
            make(output=output, config=config, resume=True, **kwargs)
        assert before == {path: path.read_bytes() for path in before}

    changed = dataclasses.replace(CONFIG, lr=0.1, momentum=0.8, epochs=3)
    refused(r"(?s)other options:.*  lr: 0.05 in the run, 0.1 now\n  momentum: 0.9 in the run, 0.8 now\n", changed)
    refused("the condition was decrease:1 and is always now", condition=seeking.Always())
    refused("an epoch had 6 batches and has 12 now", train_loader=batches(batch_size=4)["train_loader"])
    small, large = two_models()
    wider, narrower = OneStage(2, width=16), OneStage(1, width=4)
    for others in ((small, WithDropout(4)), (small, wider), (narrower, large)):
        with pytest.raises(SeekingError, match=r"with these models: .* belongs to other models\. Give"):
            Trainer(*others, **batches(), config=CONFIG, output=output, resume=True)
    refused("the state of another optimizer", optimizer=lambda m: torch.optim.Adagrad(list(m.parameters())[:3]))
    with pytest.raises(SeekingError, match="holds another run"):
        make(output=output, config=CONFIG)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(SeekingError, match="not the folder of a run, so it is not resumed"):
        make(output=tmp_path / "mine", config=CONFIG, resume=True)


def test_a_state_of_other_parts_is_told_with_what_to_do() -> None:
    with pytest.raises(SeekingError, match=r"the parts motivated and has base now.*seeking compare --resume"):
        restore_state({"base": seeking.Always()}, {"parts": {"motivated": None}})


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    output = tmp_path / "run"

    def second(row: dict[str, Any]) -> None:
        if row.get("step") == 3:
            for kwargs in ({"resume": True}, {"output": seeking.training.RunFolder(output, overwrite=True)}):
                with pytest.raises(SeekingError, match="another program is training in this folder"):
                    make(**{"output": output, **kwargs}, config=CONFIG).fit()
            tried.append(row["step"])

    tried: list[int] = []
    first = make(output=output, config=CONFIG, listeners=[second]).fit()
    assert tried
    assert make(output=output, config=CONFIG, resume=True).fit().history == first.history


@pytest.mark.slow
def test_the_newest_are_kept_and_the_last_good_one_is_never_deleted_first(tmp_path: Path) -> None:
    present: list[list[str]] = []

    def look(row: dict[str, Any]) -> None:
        present.append([path.name for path in snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")])

    config = dataclasses.replace(EVERY_STEP, keep_checkpoints=3, epochs=4)
    make(output=tmp_path / "run", config=config, listeners=[look]).fit()
    first = next(number for number, names in enumerate(present) if names)
    assert all(1 <= len(names) <= 4 for names in present[first:])
    kept = snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")
    assert len(kept) == 3
    assert kept[0].name == "step-00000024"
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_a_broken_checkpoint_is_set_aside_and_the_one_before_taken(tmp_path: Path) -> None:
    outputs = tmp_path / "whole", tmp_path / "parts"
    whole = whole_run(make, outputs[0], CONFIG)
    make(output=outputs[1], config=CONFIG).fit()
    newest = snapshot.list_checkpoints(outputs[1] / "checkpoints")[0] / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(RunWarning, match=r"step-00000012: damaged.*set aside, and the one before is used"):
        trainer = make(output=outputs[1], config=CONFIG, resume=True)
    assert trainer.progress.step == 6
    same(whole, (trainer, trainer.fit()), outputs)
    assert (outputs[1] / "checkpoints" / "damaged-step-00000012").is_dir()
    for path in snapshot.list_checkpoints(outputs[1] / "checkpoints"):
        (path / "manifest.json").unlink()
    with pytest.raises(SeekingError, match="none of 2 checkpoints is intact"):
        make(output=outputs[1], config=CONFIG, resume=True)


def test_best_weights_that_are_damaged_are_said_and_found_anew(tmp_path: Path) -> None:
    make(output=tmp_path / "run", config=CONFIG).fit()
    (tmp_path / "run" / "base.best.safetensors").write_bytes(b"nothing")
    longer = dataclasses.replace(CONFIG, epochs=3)
    with pytest.warns(RunWarning, match=r"base.best.safetensors: damaged.* looked for anew"):
        result = make(output=tmp_path / "run", config=longer, resume=True).fit()
    assert result.best["base"]["epoch"] == 3


@pytest.mark.parametrize("cut", [0, 1, 57, -1])
def test_damaged_metrics(cut: int, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        make(output=output, config=CONFIG, listeners=[stop_at(8)]).fit()
    file = output / "metrics.jsonl"
    rows = file.read_bytes()
    file.write_bytes(rows[:cut])
    with pytest.warns(RunWarning, match="rows are missing"):
        result = make(output=output, config=CONFIG, resume=True).fit()
    assert [row["step"] for row in steps(result)][-3:] == [9, 10, 11]
    assert list(metrics_log.read_rows(file)) == result.history


def test_a_record_of_any_claimed_length_is_not_read_whole(tmp_path: Path) -> None:
    make(output=tmp_path / "run", config=CONFIG).fit()
    folder = RunFolder(tmp_path / "run", resume=True)
    with folder, pytest.warns(RunWarning, match="rows are missing"):
        assert len(folder.reopen({}, 2**62)) == 15


def test_a_damaged_row_of_the_metrics_is_named(tmp_path: Path) -> None:
    output = tmp_path / "run"
    make(output=output, config=CONFIG).fit()
    file = output / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:3], "x" + lines[3][1:], *lines[4:]]))
    with pytest.raises(SeekingError, match=r"metrics.jsonl, line 4: damaged.*move the file away"):
        make(output=output, config=CONFIG, resume=True).fit()
    file.unlink()
    with pytest.warns(RunWarning, match="rows are missing"):
        make(output=output, config=CONFIG, resume=True).fit()


def test_a_run_without_its_checkpoints_is_not_begun_anew(tmp_path: Path) -> None:
    output = tmp_path / "run"
    make(output=output, config=CONFIG).fit()
    shutil.rmtree(output / "checkpoints")
    with pytest.raises(SeekingError, match=r"best.safetensors is there, but no checkpoint; overwrite"):
        make(output=output, config=CONFIG, resume=True)
    assert (output / "base.best.safetensors").exists()


def test_an_error_in_a_users_code_waits_for_what_is_being_written(tmp_path: Path) -> None:
    def fail(row: dict[str, Any]) -> None:
        if row["kind"] == "saving" and row["step"] == 6:
            raise Killed

    with pytest.raises(Killed):
        make(output=tmp_path / "run", config=CONFIG, listeners=[fail]).fit()
    assert snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")[0].name == "step-00000006"


@pytest.mark.slow
def test_a_schedule_of_ones_own(tmp_path: Path) -> None:
    def own(**kwargs: Any) -> Trainer:
        def schedule(optimizer: Any, steps: int) -> Any:
            return torch.optim.lr_scheduler.CyclicLR(optimizer, 0.001, 0.01, step_size_up=2)

        return make(schedule=schedule, **kwargs)

    outputs = tmp_path / "whole", tmp_path / "parts"
    same(whole_run(own, outputs[0], CONFIG), interrupted_run(own, outputs[1], CONFIG, [2, 7]), outputs)


class Smoothed(nn.Module):
    """A loss with a memory, as an ``nn.Module`` has it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, model: nn.Module, batch: Any) -> Tensor:
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        if model.training:
            self.mean = 0.9 * self.mean + 0.1 * loss.detach()
        return loss * (1 + self.mean)


def test_a_loss_with_state(tmp_path: Path) -> None:
    def with_loss(**kwargs: Any) -> Trainer:
        return make(loss_fn=Smoothed(), **kwargs)

    outputs = tmp_path / "uninterrupted", tmp_path / "interrupted"
    same(
        whole_run(with_loss, outputs[0], EVERY_STEP),
        interrupted_run(with_loss, outputs[1], EVERY_STEP, [5]),
        outputs,
    )


def test_all_of_an_optimizers_state_is_restored() -> None:
    """timm's kron keeps a generator beside the state of each parameter."""
    layer = nn.Linear(2, 2)
    optimizer, restored = (Drawing(layer.parameters()) for _ in range(2))
    optimizer.drawn = 7
    load_optimizer_state(restored, optimizer.state_dict())
    assert restored.drawn == 7


class Drawing(torch.optim.SGD):
    """Counts its draws."""

    drawn = 0

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "drawn": self.drawn}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.drawn = state_dict.pop("drawn")
        super().load_state_dict(state_dict)


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="the system has no priorities")
def test_what_is_written_has_the_priority_of_training() -> None:
    """A thread of a lower one holds the interpreter's lock while it waits for a core, and training waits with it."""
    priorities = []
    writer = BackgroundWriter()
    writer.start([lambda: priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))])
    writer.wait()
    assert priorities == [os.getpriority(os.PRIO_PROCESS, 0)]
