"""Who has not said whose the shared part is, is warned where the base's weights replace learnt ones, and only there."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import seeking
from seeking.errors import RunWarning
from seeking.models.resnet import ResNet

VIT = {"img_size": 8, "patch_size": 4, "num_classes": 3, "depth": 2}


def resnet(large: bool) -> nn.Module:
    return ResNet(14 if large else 8, width=3)


def transformer(large: bool) -> nn.Module:
    return timm.create_model(f"vit_{'small' if large else 'tiny'}_patch16_224", **VIT)


def trained(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return model


def told(*arguments: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seeking.Pair(*arguments, **options)
    return [str(each.message) for each in caught if "pretrained" in str(each.message)]


@pytest.mark.slow
@settings(max_examples=16)
@given(
    make=st.sampled_from([resnet, transformer]),
    learnt=st.tuples(st.booleans(), st.booleans()),
    owner=st.sampled_from([None, "base", "motivated"]),
)
def test_learnt_weights_are_not_replaced_without_a_word(make: Any, learnt: tuple[bool, bool], owner: Any) -> None:
    models = [trained(make(large)) if learnt[large] else make(large) for large in (False, True)]
    messages = told(*models, shared_from=owner)
    assert len(messages) == (learnt == (True, False) if owner == "motivated" else owner is None and learnt[1])
    who = "of a new motivated model" if owner else "both models seem" if learnt[0] else "of a new base"
    assert all(who in message for message in messages)
    assert told(*models) == told(*models, shared_from="motivated") == []  # Both now hold the same.


def test_models_without_norms_are_not_judged() -> None:
    models = [nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)) for width in (4, 8)]
    assert told(models[0], trained(models[1])) == []


@pytest.mark.parametrize("extra", ["own", "neutral"])
def test_the_trainer_warns_at_the_start_alone(extra: Any, tmp_path: Path) -> None:
    data = torch.utils.data.TensorDataset(torch.randn(8, 3, 8, 8), torch.arange(8) % 3)
    loader = torch.utils.data.DataLoader(data, batch_size=4)

    def fit(epochs: int) -> None:
        config = seeking.TrainConfig(epochs=epochs, extra=extra, device="cpu", verify=False)
        models = ResNet(8, width=3, num_classes=3), trained(ResNet(14, width=3, num_classes=3))
        seeking.Trainer(
            *models, train_loader=loader, config=config, output=tmp_path / "run", resume=epochs > 1, progress=False
        ).fit()

    with pytest.warns(RunWarning, match="Give shared_from='motivated'"):
        fit(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*pretrained")
        fit(2)
