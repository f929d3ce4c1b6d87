"""Initialization of a base by a motivated model, and there and back."""

import copy

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from zoo_images import image_models
from zoo_tokens import token_models

import seeking
from seeking import match, verify
from seeking.models.resnet import ResNet
from seeking.weights_map import tensors


@pytest.mark.parametrize("width", ["leading", "even"])
def test_extract_initializes_the_base(width: str) -> None:
    base, motivated = ResNet(8, width=4), ResNet(14, width=8)
    weights_map = match(base, motivated, width=width)
    seeking.extract(motivated, base, weights_map)
    step = 2 if width == "even" else 1
    assert torch.equal(base.conv1.weight, motivated.conv1.weight[: 4 * step : step])
    assert verify(base, motivated, weights_map, torch.randn(1, 3, 16, 16))


@pytest.mark.slow
@settings(max_examples=10)
@given(token_models())
def test_what_was_embedded_is_extracted_tokens(models: tuple[nn.Module, nn.Module, Tensor]) -> None:
    there_and_back(*models)


@pytest.mark.slow
@settings(max_examples=10)
@given(image_models())
def test_what_was_embedded_is_extracted_images(models: tuple[nn.Module, nn.Module, Tensor]) -> None:
    there_and_back(*models)


def there_and_back(base: nn.Module, motivated: nn.Module, batch: Tensor) -> None:
    weights_map = match(base, motivated, batch=batch)
    other = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    seeking.embed(base, motivated, weights_map, extra="own", batch=batch)
    seeking.extract(motivated, other, weights_map)
    assert all(torch.equal(tensors(other)[name], tensor) for name, tensor in tensors(base).items())
