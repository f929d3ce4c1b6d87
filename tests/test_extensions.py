"""A new condition, algorithm, part with state or family of models is one new file; no other is edited."""

import subprocess
from pathlib import Path

import pytest

CONDITION = '''
from seeking.conditions.base import Condition, Outcome, Signals, State
from seeking.conditions.registry import register


@register("thrifty")
class Thrifty(Condition):
    """Every batch until the motivated steps have cost so many times a base's step ("thrifty:3")."""

    def __init__(self, steps: float) -> None:
        self.steps, self.spent = steps, 0.0

    def __str__(self) -> str:
        return f"thrifty:{self.steps}"

    def decide(self, signals: Signals) -> bool:
        assert signals.flops_spent and signals.steps and signals.learning_rate
        return self.spent + signals.motivated_flops <= self.steps * signals.base_flops

    def feedback(self, outcome: Outcome) -> None:
        assert outcome.taken and outcome.grad_norm > 0
        self.spent += outcome.flops

    def state_dict(self) -> State:
        return {"spent": self.spent}

    def load_state_dict(self, state: State) -> None:
        self.spent = state["spent"]
'''

ALGORITHM = '''
from seeking.training.run import Batch, Run


class Alternating:
    """The motivated model takes every other step alone."""

    def __init__(self) -> None:
        self.turn = 0

    def __call__(self, batch: Batch, run: Run) -> None:
        self.turn += 1
        if self.turn % 2:
            run.step(run.base, batch)
        else:
            with run.pair.motivated():
                run.step(run.motivated, batch)

    def state_dict(self):
        return {"turn": self.turn}

    def load_state_dict(self, state) -> None:
        self.turn = state["turn"]
'''

PART = '''
import torch


class Average:
    """The mean of the base's weights after every step; its listener is called with every row."""

    def __init__(self, model) -> None:
        self.model, self.count, self.mean = model, 0, torch.zeros(())

    def __call__(self, row) -> None:
        if row["kind"] == "step":
            self.count += 1
            self.mean = self.mean + (self.model.weight.detach().mean() - self.mean) / self.count

    def state_dict(self):
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state) -> None:
        self.count, self.mean = state["count"], state["mean"]
'''

FAMILY = """
import re

from torch import nn

from seeking.models.family import Family


def make(name, *, num_classes, in_features):
    return nn.Linear(in_features, num_classes, bias=name == "line-biased")


FAMILY = Family(
    pattern=re.compile("line-(biased|plain)"),
    names=("line-biased", "line-plain"),
    task="tabular",
    make=make,
    arguments=lambda num_classes, channels: {"num_classes": num_classes, "in_features": channels},
)
"""

PROGRAM = """
import pathlib, signal, sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

folder = pathlib.Path(sys.argv[1])
import seeking.algorithms, seeking.conditions, seeking.models, seeking.training
for package in ("algorithms", "conditions", "models", "training"):  # As if the files lay beside their siblings.
    getattr(seeking, package).__path__.append(str(folder / package))
from seeking import TrainConfig, Trainer, parse_condition
from seeking.algorithms.alternating import Alternating
from seeking.training.average import Average

assert str(parse_condition("thrifty:3 & always")) == "thrifty:3 & always"
data = TensorDataset(torch.randn(48, 4, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 3)


def run(name, stop=None, resume=False, **options):
    torch.manual_seed(0)
    base, motivated = nn.Linear(4, 3), nn.Linear(4, 3)
    average = Average(base)

    def interrupt(row):
        if row["kind"] == "step" and row["step"] == stop:
            signal.raise_signal(signal.SIGINT)

    trainer = Trainer(
        base, motivated, train_loader=DataLoader(data, 4, shuffle=True), output=folder / name, resume=resume,
        parts={"average": average}, listeners=[average, interrupt],
        config=TrainConfig(epochs=2, condition="thrifty:9 | every:7"), **options,
    )
    try:
        result = trainer.fit()
    except KeyboardInterrupt:
        return None
    return trainer, result, average


for name, options in (("condition", {}), ("algorithm", {"algorithm": Alternating})):
    make = lambda: {key: value() for key, value in options.items()}
    whole, result, average = run(f"{name}-whole", **make())
    assert run(f"{name}-parts", stop=14, **make()) is None
    resumed, again, other = run(f"{name}-parts", resume=True, **make())
    assert result.history == again.history and 0 < result.cost.motivated_batches < result.cost.batches == 24
    assert (average.count, float(average.mean)) == (other.count, float(other.mean)) and average.count == 24
    assert torch.equal(whole.pair.base.weight, resumed.pair.base.weight)
model = seeking.models.create("line-plain", num_classes=3, in_features=4)
assert model.bias is None and model.weight.shape == (3, 4) and seeking.models.task_of("line-biased") == "tabular"
print("as expected")
"""


@pytest.mark.slow
def test_additions_of_one_file_each(client: str, tmp_path: Path) -> None:
    for name, text in (
        ("conditions/thrifty.py", CONDITION),
        ("algorithms/alternating.py", ALGORITHM),
        ("training/average.py", PART),
        ("models/line.py", FAMILY),
        ("program.py", PROGRAM),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    command = [client, str(tmp_path / "program.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "as expected\n", done.stderr
