"""The FLOPs of models, and what a run costs."""

import dataclasses

import pytest
import torch
from runs import CONFIG, run
from torch import nn

from seeking import Every
from seeking.training import Cost, count_flops


def test_flops_are_those_of_the_layers() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    x = torch.randn(4, 5)
    forward, both = count_flops(model, lambda m, batch: m(batch).sum(), x)
    assert forward == 2 * 4 * (5 * 7 + 7 * 3)
    # The backward pass makes both weight gradients and one input gradient; the data need none.
    assert both == forward + 2 * 4 * (5 * 7 + 2 * 7 * 3)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_costs_of_a_run_add_up() -> None:
    _, result = run(condition=Every(4))
    cost = result.cost
    assert (cost.batches, cost.motivated_batches, cost.samples, cost.motivated_samples) == (12, 3, 96, 24)
    report = cost.report()
    ratio = cost.motivated_flops / cost.base_flops
    assert report["of_motivated_alone"] == pytest.approx((1 + 0.25 * ratio) / ratio)
    assert report["of_both_alone"] == pytest.approx((1 + 0.25 * ratio) / (1 + ratio))
    always = Cost(
        base_flops=1.0,
        motivated_flops=2.0,
        batches=5,
        motivated_batches=5,
        run_samples=5,
        samples=5,
        motivated_samples=5,
    )
    assert always.report()["of_both_alone"] == 1


def test_recalibration_is_paid_for_and_counted() -> None:
    _, result = run(dataclasses.replace(CONFIG, norm="recalibrated", recalibration_batches=3))
    assert result.cost.recalibration_samples == 2 * 3 * 8
