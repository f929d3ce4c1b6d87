"""Changes of a pair's models that would be lost are noticed."""

import copy
import warnings

import pytest
import torch
from families import SMALL_FAMILIES
from torch import nn
from torch.nn.utils import prune

from seeking import Pair, SeekingError, match
from seeking.errors import RunWarning


def test_a_module_replaced_after_pairing_is_noticed() -> None:
    pair = Pair(*SMALL_FAMILIES[0].make())
    pair.base.fc = nn.Linear(64, 10)
    with pytest.raises(SeekingError, match="replaced after they were paired"), pair.motivated():
        pass


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("role", ["base", "motivated model"])
def test_a_parameter_that_is_computed_from_another_one_after_pairing_is_noticed(role: str, tie: bool) -> None:
    """What is copied into it would be lost in the next forward pass."""
    pair = Pair(*SMALL_FAMILIES[0].make(), tie=tie)
    model = pair.base if role == "base" else pair.motivated_model
    prune.l1_unstructured(model.conv1, "weight", 0.5)
    with pytest.raises(SeekingError, match=rf"conv1\.weight is no parameter or buffer of the {role} any more.*pruning"):
        pair.motivated().__enter__()


@pytest.mark.parametrize("tie", [True, False])
def test_a_change_of_the_base_that_is_lost_is_told(tie: bool) -> None:
    models = [nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)) for width in (4, 6)]
    pair = Pair(*models, match(*models, batch=torch.ones(2, 3)), tie=tie)
    with pytest.warns(RunWarning, match="changed inside motivated"), pair.motivated(), torch.no_grad():
        pair.base[0].weight.add_(1)
    with warnings.catch_warnings(), pair.motivated(), torch.no_grad():
        warnings.simplefilter("error")
        pair.motivated_model[0].weight.add_(1)
        pair.base(torch.ones(1, 3))


@pytest.mark.parametrize("width", [8, 16])
def test_a_step_of_the_motivated_model_outside_is_told_of_where_it_is_lost(width: int) -> None:
    base, motivated = (nn.Sequential(nn.Linear(6, w), nn.ReLU(), nn.Linear(w, 3)) for w in (8, width))
    pair = Pair(base, motivated)
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in (base, motivated)]

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.randn(4, 6)).pow(2).sum().backward()
        optimizer.step()

    def enter() -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pair.motivated() as model:
                step(model, optimizers[1])
        return [str(warning.message) for warning in caught]

    with torch.no_grad():
        for parameter in motivated.parameters():
            parameter.copy_(parameter.clone())  # As DDP does when it wraps a model.
    step(base, optimizers[0])
    assert not enter()
    pair = Pair(base, motivated)
    step(motivated, optimizers[1])
    assert len(enter()) == (width > 8)
    for _ in range(2):
        step(base, optimizers[0])
        assert not enter()
    states = [copy.deepcopy(model.state_dict()) for model in (base, motivated)]
    step(base, optimizers[0])
    for model, state in zip((base, motivated), states, strict=True):
        model.load_state_dict(state)
    assert not enter()
    step(motivated, optimizers[1])
    told = enter()
    assert len(told) == (width > 8) and all("changed outside motivated()" in text for text in told)


@pytest.mark.parametrize(("dtype", "value", "change"), [(torch.float16, 20.0, 1.0), (torch.bfloat16, 1.0, 2**-7)])
def test_changes_before_the_first_motivated_step_are_seen_in_half_precision(
    dtype: torch.dtype, value: float, change: float
) -> None:
    """The sum of the squares is beyond what float16 has, or changes by less than bfloat16 tells apart."""
    base, motivated = (nn.Sequential(nn.Linear(300, width), nn.ReLU(), nn.Linear(width, 2)) for width in (8, 16))
    for parameter in (*base.parameters(), *motivated.parameters()):
        nn.init.constant_(parameter, value)
    pair = Pair(base.to(dtype), motivated.to(dtype))
    with torch.no_grad():
        motivated[0].weight[0, 0] += change
    with pytest.warns(RunWarning, match=r"changed outside motivated\(\)"), pair.motivated():
        pass
