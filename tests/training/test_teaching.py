"""One model learns from the outputs of the other."""

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from runs import CONFIG, batches, run, steps, two_models
from torch import nn

from seeking import SeekingError, Trainer
from seeking.algorithms import distillation, motivated
from seeking.training.objective import Classification
from seeking.training.regression import Regression
from seeking.training.teaching import ignores_teacher


def test_a_taught_base_gets_other_gradients_and_a_weight_of_zero_none() -> None:
    losses = {}
    for teach in (0.0, 0.5):
        config = dataclasses.replace(CONFIG, condition="always", base_condition="after:0 & ~never", teach=teach)
        losses[teach] = [row["loss"] for row in steps(run(config)[1])]
    assert losses[0.0] != losses[0.5]


class Deaf(Classification):
    """As an objective that was written before there were teachers."""

    def loss_of_logits(self, logits: torch.Tensor, batch: Any, teacher_logits: Any = None) -> torch.Tensor:
        return super().loss_of_logits(logits, batch)


class HardLabels(Deaf):
    """Learns what the teacher would say, and counts in a state of its own."""

    calls = 0

    def loss(self, model: nn.Module, batch: Any, teacher_logits: Any = None) -> torch.Tensor:
        self.calls += 1
        labels = batch[1] if teacher_logits is None else teacher_logits.argmax(-1)
        return super().loss(model, (batch[0], labels))


def test_an_objective_that_ignores_its_teacher_is_refused() -> None:
    config = dataclasses.replace(CONFIG, teach=0.3)
    with pytest.raises(SeekingError, match=r"teach is 0\.3, but Deaf\.loss puts out the same whatever teacher_logits"):
        Trainer(*two_models(), **batches(), config=config, objective=Deaf())
    Trainer(*two_models(), **batches(), config=CONFIG, objective=Deaf())
    for objective in (HardLabels(), Classification(teacher_weight=0.3)):
        Trainer(*two_models(), **batches(), config=config, objective=objective)


@pytest.mark.parametrize(("objective", "outputs"), [(Classification(teacher_weight=0.3), 2), (Regression(0.3), 1)])
def test_a_new_head_that_puts_out_zeros_can_be_taught(objective: Any, outputs: int) -> None:
    """As far from a teacher of two classes, or of values, as from its negative; timm's vision transformers have one."""
    model = nn.Linear(3, outputs)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    targets = torch.rand(4, 1) if outputs == 1 else torch.arange(4) % 2
    assert not ignores_teacher(objective, model, (torch.randn(4, 3), targets))


def test_an_objective_that_ignores_the_teacher_of_a_distillation_is_told() -> None:
    base, motivated = two_models()
    for objective in (Deaf(), HardLabels()):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            algorithm = distillation(motivated)
            Trainer(base, **batches(), config=CONFIG, objective=objective, algorithm=algorithm).fit()
        told = [str(warning.message) for warning in heard if "does not learn from the teacher" in str(warning.message)]
        assert len(told) == (type(objective) is Deaf)


def test_an_algorithm_that_was_given_decides_itself_whether_to_teach() -> None:
    with pytest.raises(SeekingError, match=r"teach is 0\.3, which the algorithm that was given decides"):
        Trainer(*two_models(), **batches(), config=dataclasses.replace(CONFIG, teach=0.3), algorithm=motivated)
