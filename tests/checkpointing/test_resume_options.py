"""With all options, conditions, schedules and optimizers, a resumed run is the uninterrupted run, bit for bit."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP, interrupted_run, make, make_plain, same, whole_run
from runs import CONFIG, steps, stop_at
from timm.optim import list_optimizers
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

import seeking
from seeking import SeekingError, TrainConfig, Trainer
from seeking.checkpointing.weights import read_metadata
from seeking.training.optim import load_optimizer_state
from seeking.weights_map import tensors


def test_a_run_is_not_resumed_with_another_map(tmp_path: Path) -> None:
    def trainer(width: Any, **more: Any) -> Trainer:
        torch.manual_seed(0)
        models = (
            nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)),
            nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)),
        )
        weights_map = seeking.match(*models, batch=torch.zeros(1, 2), width=width)
        data = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))] * 4
        options = {"train_loader": data, "weights_map": weights_map, "output": tmp_path / "run", **more}
        return Trainer(*models, config=CONFIG, **options)

    trainer("leading").fit()
    trainer("leading", resume=True)
    with pytest.raises(SeekingError, match=r"0.weight lies at 0.weight\[0:3:2, .*, at 0.weight\[0:2, "):
        trainer("even", resume=True)
    with pytest.raises(SeekingError, match=r"weights_map|weights map"):
        trainer("leading", resume=True, weights_map={})


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


def test_keys_that_hooks_add_to_a_models_state(tmp_path: Path) -> None:
    def make_hooked(**kwargs: Any) -> Trainer:
        trainer = make(**kwargs)
        trainer.pair.base._register_state_dict_hook(lambda m, state, p, meta: state.update(version=torch.tensor(1)))
        return trainer

    outputs = tmp_path / "whole", tmp_path / "parts"
    same(whole_run(make_hooked, outputs[0], CONFIG), interrupted_run(make_hooked, outputs[1], CONFIG, [3]), outputs)


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
    except SeekingError as error:  # It needs what is not installed, or more than a step gives.
        pytest.skip(f"{name} does not train here: {error}")
    same(whole, interrupted_run(make_plain, outputs[1], config, [2]), outputs)


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
