"""Optimizers: fused kernels do what the others do, and all parameters of a model are trained."""

import dataclasses

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from runs import PLAIN
from torch import nn

from seeking import TrainConfig
from seeking.training.optim import FUSED, make_optimizer


@settings(max_examples=10)
@given(
    optimizer=st.sampled_from(["sgd", "momentum", "adamw", "adagrad"]),
    momentum=st.sampled_from([0.0, 0.9]),
    reached=st.lists(st.sets(st.integers(0, 2), min_size=1), min_size=1, max_size=4),
)
def test_fused_steps_are_those_of_other_kernels_whatever_a_batch_reaches(
    optimizer: str, momentum: float, reached: list[set[int]]
) -> None:
    """Layers may get no gradient at first, such as experts, layers with layer drop and layers that are frozen."""
    assume(momentum or optimizer != "sgd")  # Nesterov's needs it.
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = nn.ModuleList(nn.Linear(3, 2) for _ in range(3))
        config = dataclasses.replace(PLAIN, optimizer=optimizer, momentum=momentum, weight_decay=0.01)
        trained = make_optimizer(model, config, fused)
        assert bool(trained.defaults.get("fused")) == fused
        for layers in reached:
            sum(model[layer](torch.ones(4, 3)).square().sum() for layer in layers).backward()
            trained.step()
            trained.zero_grad()
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("name", ["momentum", "adam", "adamw", "adagrad"])
def test_complex_parameters_are_trained_with_the_default_options(name: str) -> None:
    model = nn.ParameterList([torch.ones(3, dtype=torch.cfloat), torch.ones(3)])
    optimizer = make_optimizer(model, TrainConfig(optimizer=name), fused=TrainConfig().fused)
    assert isinstance(optimizer, FUSED)
    (model[0].abs().sum() + model[1].sum()).backward()
    optimizer.step()
    assert not any(torch.equal(parameter, torch.ones_like(parameter)) for parameter in model)
