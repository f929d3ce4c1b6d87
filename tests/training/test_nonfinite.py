"""Losses and gradients that are not finite."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from runs import CONFIG, batches, steps, two_models
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import Every, Outcome, RunError, SeekingError, Signals, TrainConfig, Trainer
from seeking.errors import RunWarning
from seeking.training.nonfinite import MAX_FAILURES
from seeking.weights_map import tensors


class Poison(torch.autograd.Function):
    """The identity, with a gradient that is not finite."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient * math.inf


class Poisoned:
    """A loss that goes wrong at some training steps of one model: the loss itself, its gradient or the activations."""

    def __init__(self, what: str, model: str, at: tuple[int, ...]) -> None:
        self.what, self.model, self.at, self.trainer = what, model, at, None

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        wrong = self.trainer is not None and model.training and self.trainer.progress.step in self.at
        wrong = wrong and model is self.trainer.learners[self.model].module
        if wrong and self.what == "activations":  # These get into the statistics of batch normalization.
            x = x.clone()
            x[0] = math.nan
        loss = F.cross_entropy(model(x), y)
        if wrong and self.what == "loss":
            loss = loss * math.nan
        return Poison.apply(loss) if wrong and self.what == "gradient" else loss


def poisoned(what: str, model: str, at: tuple[int, ...], **kwargs: Any) -> Trainer:
    loss_fn = Poisoned(what, model, at)
    config = dataclasses.replace(CONFIG, **{"norm": "shared", **kwargs.pop("changes", {})})
    options = {**batches(), "condition": Every(2), **kwargs}
    loss_fn.trainer = trainer = Trainer(*two_models(), **options, config=config, loss_fn=loss_fn)
    return trainer


def finite(trainer: Trainer) -> bool:
    return all(
        torch.isfinite(t).all() for learner in trainer.learners.values() for t in tensors(learner.module).values()
    )


WHAT = ["loss", "gradient", "activations"]


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("model", ["base", "motivated"])
def test_stop_reports_and_poisons_nothing(what: str, model: str, tmp_path: Path) -> None:
    trainer = poisoned(what, model, (7,), output=tmp_path / "run")
    wrong = "gradient norm is (inf|nan)" if what == "gradient" else "loss became nan"
    report = rf"(?s)the {model} model's {wrong} at step 7 \(epoch 2, learning rate 0.0\d+\); weights of epoch 1 are in"
    report += r".*newest checkpoint is .*step-00000006\. Try .*gradient norm.*\n +[135]  +[\d.]+  +[\d.]+"
    with pytest.raises(RunError, match=report):
        trainer.fit()
    assert finite(trainer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_weights_in_half_precision_are_named_as_the_likely_cause(dtype: torch.dtype) -> None:
    """As ``from_pretrained`` makes them if they were saved so."""
    model = nn.Linear(3, 2).to(dtype)
    data = [(torch.randn(4, 3, dtype=dtype), torch.tensor([0, 1, 0, 1]))] * 3
    trainer = Trainer(model, train_loader=data, config=dataclasses.replace(CONFIG, optimizer="adamw", lr=1e30))
    with pytest.raises(RunError, match=r"loss became nan|gradient norm is") as raised:
        trainer.fit()
    assert ("from_pretrained" in str(raised.value)) == (dtype == torch.float16)


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("model", ["base", "motivated"])
@pytest.mark.parametrize("on", ["skip", "rollback"])
def test_the_run_goes_on(what: str, model: str, on: str, tmp_path: Path) -> None:
    notes: list[str] = []
    trainer = poisoned(
        what,
        model,
        (3, 9),
        output=tmp_path / "run",
        changes={"on_nonfinite": on, "epochs": 3},
        listeners=[lambda row: notes.append(row["text"]) if row["kind"] == "note" else None],
    )
    with pytest.warns(RunWarning, match=f"the {model} model's .* at step 3 .*"):
        result = trainer.fit()
    assert len(steps(result)) == 18
    assert finite(trainer)
    rows = [row for row in result.history if row["kind"] == "nonfinite"]
    assert rows == [{"kind": "nonfinite", "step": step, "model": model, "action": on} for step in (3, 9)]
    # Once for each failure, not at every batch until the model trains again.
    assert notes == ([f"rolled back to the weights of step {step}" for step in (0, 6)] if on == "rollback" else [])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_without_a_label_is_told_and_can_be_skipped(accumulate: int) -> None:
    def trainer(on: str) -> Trainer:
        x, y = torch.randn(24, 6), torch.arange(24) % 3
        y[: 4 * accumulate] = -100
        data = DataLoader(TensorDataset(x, y), batch_size=4)
        config = TrainConfig(epochs=1, on_nonfinite=on, accumulate=accumulate, device="cpu")  # type: ignore[arg-type]
        models = [nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3)) for width in (4, 8)]
        return Trainer(*models, train_loader=data, config=config)

    with pytest.raises(RunError, match=r"became nan at step 0 .*labels that are all -100, make the mean loss NaN"):
        trainer("stop").fit()
    run = trainer("skip")
    with pytest.warns(RunWarning, match="its step on this batch is skipped"):
        run.fit()
    assert finite(run) and run.progress.step == 6 // accumulate


def test_a_skipped_step_is_a_step_not_taken() -> None:
    """The run equals one whose condition does not hold there."""

    class EveryButOne(Every):
        def decide_at(self, batch: int, signals: Signals) -> bool:
            return batch != 7 and super().decide_at(batch, signals)

    skipping = poisoned("activations", "motivated", (7,), changes={"on_nonfinite": "skip"})
    with pytest.warns(RunWarning):
        skipping.fit()
    without = poisoned("activations", "motivated", (), condition=EveryButOne(2))
    without.fit()
    for role, learner in skipping.learners.items():
        theirs = tensors(without.learners[role].module)
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in tensors(learner.module).items())


def test_a_roll_back_takes_the_weights_and_not_the_time(tmp_path: Path) -> None:
    seen: list[tuple[dict[str, Tensor], float]] = []

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "step":
            weights = {name: tensor.clone() for name, tensor in tensors(trainer.pair.base).items()}
            seen.append((weights, trainer.learners["base"].optimizer.param_groups[0]["lr"]))

    changes = {"on_nonfinite": "rollback", "optimizer": "adamw", "lr": 0.01}
    trainer = poisoned("loss", "base", (10,), output=tmp_path / "run", listeners=[listen], changes=changes)
    with pytest.warns(RunWarning, match="rolled back"):
        trainer.fit()
    after_epoch, after_failure = seen[5][0], seen[10][0]
    assert all(torch.equal(tensor, after_failure[name]) for name, tensor in after_epoch.items())
    rates = [rate for _, rate in seen]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 12


@pytest.mark.slow
def test_a_run_that_is_always_wrong_is_given_up(tmp_path: Path) -> None:
    for on in ("skip", "rollback"):
        changes = {"on_nonfinite": on, "epochs": 5}
        trainer = poisoned("loss", "base", tuple(range(6, 99)), output=tmp_path / on, changes=changes)
        with (
            pytest.warns(RunWarning),
            pytest.raises(RunError, match=rf"at step {5 + MAX_FAILURES} .*after {MAX_FAILURES - 1} consecutive"),
        ):
            trainer.fit()
    # One good step in between, so that it is never wrong many times in a row.
    options = {**batches(batch_size=2), "output": tmp_path / "again", "changes": changes}
    trainer = poisoned("loss", "base", tuple(range(1, 99, 2)), **options)
    with pytest.warns(RunWarning), pytest.raises(RunError, match="the base model keeps failing"):
        trainer.fit()


def test_roll_backs_need_a_folder() -> None:
    with pytest.raises(SeekingError, match="rollback needs an output folder"):
        poisoned("loss", "base", (), changes={"on_nonfinite": "rollback"})


@pytest.fixture
def scaled() -> Iterator[Callable[[float], Accelerator]]:
    """Makes an accelerator that scales losses as under fp16; nothing is run in half precision."""
    from accelerate.state import AcceleratorState

    def make(scale: float) -> Accelerator:
        AcceleratorState._reset_state()
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=2.0**-30)
        accelerator.native_amp = True
        accelerator.state._mixed_precision = "fp16"
        accelerator.autocast = torch.nn.Module
        return accelerator

    yield make
    AcceleratorState._reset_state()


@pytest.mark.parametrize("model", ["base", "motivated"])
@pytest.mark.parametrize("on", ["skip", "rollback"])
def test_a_loss_gone_wrong_under_loss_scaling(model: str, on: str, scaled: Any, tmp_path: Path) -> None:
    trainer = poisoned(
        "loss", model, (3, 9), accelerator=scaled(2.0**10), output=tmp_path / "run", changes={"on_nonfinite": on}
    )
    with pytest.warns(RunWarning, match=f"the {model} model's loss became nan at step 3"):
        assert len(steps(trainer.fit())) == 12
    assert finite(trainer)
    assert trainer.accelerator.scaler.get_scale() == 2.0**10


class Averaging(nn.Module):
    """Puts another tensor in its buffer's place, as averages of one's own are often written."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("last", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
            self.last = x.detach().amax()[None]
        return x + self.mean


def test_a_buffer_that_is_replaced_is_given_back() -> None:
    means: list[float] = []
    models: list[Any] = [nn.Sequential(nn.Flatten(), nn.Linear(192, w), Averaging(), nn.Linear(w, 4)) for w in (4, 8)]

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] in (1, 2):
            means.append(float(models[0][2].mean))

    loss_fn = Poisoned("activations", "base", (2,))
    config = dataclasses.replace(CONFIG, on_nonfinite="skip")
    loss_fn.trainer = Trainer(*models, **batches(), config=config, loss_fn=loss_fn, listeners=[listen])
    with pytest.warns(RunWarning, match="skipped"):
        loss_fn.trainer.fit()
    assert means[0] == means[1]
    assert all(torch.isfinite(buffer).all() for buffer in models[0].buffers())


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adan", "lamb", "radam", "nadamw"])
def test_a_roll_back_takes_all_that_an_optimizer_remembers(optimizer: str, tmp_path: Path) -> None:
    """Some count their steps in their groups."""
    kept: list[Any] = []

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] in ("eval", "note") and len(kept) < 2:
            groups = trainer.learners["base"].optimizer.param_groups
            values = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in groups]
            kept.append(copy.deepcopy(values))

    changes = {"on_nonfinite": "rollback", "optimizer": optimizer, "lr": 1e-3}
    trainer = poisoned("loss", "base", (9,), output=tmp_path / "run", changes=changes, listeners=[listen])
    with pytest.warns(RunWarning, match="rolled back"):
        trainer.fit()
    assert kept[0] == kept[1]


class Seen(Every):
    """Remembers what it is told."""

    def __init__(self) -> None:
        super().__init__(2)
        self.signals: list[Signals] = []
        self.taken: list[bool] = []

    def decide(self, signals: Signals) -> bool:
        self.signals.append(signals)
        return super().decide(signals)

    def feedback(self, outcome: Outcome) -> None:
        self.taken.append(outcome.taken)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("at", [1, 3])  # The first motivated step, or a later one.
@pytest.mark.parametrize("model", ["base", "motivated"])
def test_an_overflow_of_one_model_leaves_out_its_step_alone(model: str, at: int, scaled: Any) -> None:
    """Condition and schedules know of it; PyTorch's warning of schedules that go on before a step does not come."""
    seen, sound = Seen(), Seen()
    trainers = [
        poisoned("gradient", model, overflows, condition=condition, accelerator=scaled(2.0**10), progress=False)
        for condition, overflows in ((seen, (at,)), (sound, ()))
    ]
    for trainer in trainers:
        trainer.begin()
        trainer.train_epoch()
    scales = [trainer.accelerator.scaler.get_scale() for trainer in trainers]
    assert scales[0] < scales[1] == 2.0**10
    assert finite(trainers[0])
    steps_taken = [signals.base_stepped for signals in seen.signals]
    assert steps_taken == [model != "base" or step != at for step in range(len(steps_taken))]
    assert all(math.isfinite(signals.grad_norm or 0.0) for signals in seen.signals)
    assert seen.signals[at].grad_norm is None or model != "base"
    assert seen.taken == [model != "motivated" or 2 * number + 1 != at for number in range(len(seen.taken))]
    assert all(sound.taken) and len(sound.taken) == len(seen.taken) == 3
    rates = [[learner.learning_rate for learner in trainer.learners.values()] for trainer in trainers]
    assert rates[0] == rates[1] and len({*rates[0]}) == 1
    costs = [dataclasses.asdict(trainer.run.cost) for trainer in trainers]
    assert costs[0] == costs[1]


def test_overflow_under_loss_scaling_is_no_error(scaled: Any, tmp_path: Path) -> None:
    """With a scale that is far too large, as at the start of every fp16 run."""
    accelerator = scaled(2.0**127)
    trainer = poisoned("loss", "base", (), accelerator=accelerator, output=tmp_path / "run", changes={"epochs": 4})
    before = {name: tensor.clone() for name, tensor in tensors(trainer.pair.base).items()}
    result = trainer.fit()
    norms = [row["grad_norm"] for row in steps(result)]
    assert not math.isfinite(norms[0]) and math.isfinite(norms[-1])
    assert accelerator.scaler.get_scale() < 2.0**127
    assert finite(trainer)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in tensors(trainer.pair.base).items())


def test_a_first_batch_with_nan_is_named_and_can_be_skipped() -> None:
    x = torch.randn(16, 8)
    x[:4] = math.nan
    data = DataLoader(TensorDataset(x, torch.arange(16) % 2), batch_size=4)
    config = TrainConfig(epochs=1, on_nonfinite="skip")
    models = [nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2)) for width in (4, 8)]
    with pytest.raises(SeekingError, match=r"NaN in the first batch of the training data.*set verify to false"):
        Trainer(*models, train_loader=data, config=config)
    trainer = Trainer(*models, train_loader=data, config=dataclasses.replace(config, verify=False))
    with pytest.warns(RunWarning, match="skipped"):
        trainer.fit()
    assert trainer.progress.step == 4
