"""Modules keep the mode for training that the user has given them."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import CONFIG, batches
from torch import Tensor, nn

from seeking import SeekingError, Trainer, recalibrate
from seeking.models.resnet import ResNet
from seeking.training.modes import evaluating, set_modes, training_modes
from seeking.weights_map import tensors


def tree(modes: list[bool]) -> nn.Module:
    """Modules in modules, with these modes."""
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(), nn.ReLU())))
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return model


MODES = st.lists(st.booleans(), min_size=7, max_size=7)


@given(MODES)
def test_evaluating_gives_every_mode_back(modes: list[bool]) -> None:
    model = tree(modes)
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes


@given(MODES)
def test_frozen_modules_stay_frozen_and_a_model_in_evaluation_mode_is_trained_as_a_whole(modes: list[bool]) -> None:
    model = tree(modes)
    set_modes(training_modes(model))
    assert [module.training for module in model.modules()] == (modes if modes[0] else [True] * 7)


class Merging(nn.Linear):
    """Adds its update to its weights in evaluation mode, as LoRA layers do."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.update, self.merged = torch.ones(2, 2), False

    def train(self, mode: bool = True) -> "Merging":
        if mode == self.merged:
            self.weight.data += -self.update if mode else self.update
            self.merged = not mode
        return super().train(mode)


def test_models_that_change_their_weights_with_their_mode_change_them_back() -> None:
    model = nn.Sequential(Merging(), Merging())
    model[0].weight.data.fill_(1)
    model[1].weight.data.fill_(2)
    model[1].eval()
    with evaluating(model):
        assert model[0].merged
        assert model[1].merged
    assert (model[0].weight == 1).all()
    assert (model[1].weight == 3).all()


def frozen(depth: int, width: int) -> ResNet:
    """A model whose first norm the user has frozen."""
    model = ResNet(depth, num_classes=4, width=width)
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    return model


def statistics(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Running statistics by norm."""
    return {
        name: {key: value.clone() for key, value in tensors(module).items() if key.startswith("running")}
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }


@pytest.mark.parametrize("norm", ["shared", "private", "recalibrated"])
@pytest.mark.parametrize("options", [{}, {"channels_last": False}])
def test_norms_that_the_user_froze_keep_their_statistics(norm: Any, options: dict[str, Any]) -> None:
    models = {"base": frozen(8, 4), "motivated": frozen(14, 4)}
    before = {role: statistics(model) for role, model in models.items()}
    config = dataclasses.replace(CONFIG, condition="every:2", norm=norm, **options)
    Trainer(models["base"], models["motivated"], **batches(), config=config).fit()
    for role, model in models.items():
        (first, *others), after = before[role], statistics(model)
        assert model.training
        if role == "base" or norm != "shared":  # A shared norm of the larger model holds the base's statistics.
            assert all(torch.equal(value, after[first][key]) for key, value in before[role][first].items())
        assert all(not torch.equal(before[role][name]["running_mean"], after[name]["running_mean"]) for name in others)


def test_frozen_norms_are_not_recalibrated() -> None:
    model = frozen(8, 4)
    before, (first, *others) = statistics(model), statistics(model)
    recalibrate(model, [torch.rand(4, 3, 8, 8)])
    after = statistics(model)
    assert all(torch.equal(value, after[first][key]) for key, value in before[first].items())
    assert all(not torch.equal(before[name]["running_mean"], after[name]["running_mean"]) for name in others)


def test_statistics_stay_as_they_were_if_there_is_no_batch_or_one_fails() -> None:
    model = ResNet(8, width=4)
    before = {name: tensor.clone() for name, tensor in tensors(model).items()}
    with pytest.raises(SeekingError, match="batches has no batch"):
        recalibrate(model, iter(()))
    with pytest.raises(RuntimeError):
        recalibrate(model, [torch.rand(4, 3, 8, 8), torch.rand(4, 5, 8, 8)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(model).items())


def test_a_listener_that_leaves_a_model_in_evaluation_mode_does_not_freeze_it() -> None:
    model = frozen(8, 4)
    modes = [module.training for module in model.modules()]
    trainer = Trainer(model, **batches(), config=CONFIG, listeners=[lambda row: model.eval() and None])
    before = statistics(model)
    trainer.fit()
    (first, *others), after = before, statistics(model)
    assert all(torch.equal(value, after[first][key]) for key, value in before[first].items())
    assert all(not torch.equal(before[name]["running_mean"], after[name]["running_mean"]) for name in others)
    trainer.learners["base"].train_mode()
    assert [module.training for module in model.modules()] == modes
