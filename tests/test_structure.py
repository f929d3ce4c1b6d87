"""Maps of random networks, made of every kind of layer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from zoo import IMAGE_BRANCHES, PICTURES, TOKEN_BRANCHES, WORDS, Images, Sizes, Tokens, image_models, token_models

from seeking import match, verify
from seeking.weights_map import tensors

SMALL = Sizes()
LARGE = Sizes(width=7, hidden=9, heads=5, per_group=3, depth=3, words=13)


def assert_exact(base: nn.Module, motivated: nn.Module, batch: Tensor, **policies: str) -> None:
    weights_map = match(base, motivated, batch=batch, **policies)
    verdict = verify(base, motivated, weights_map, batch)
    assert verdict, verdict.reason
    embedded = weights_map.embed(tensors(base), tensors(motivated))
    extracted = weights_map.extract(embedded)
    assert all(torch.equal(extracted[name], tensor) for name, tensor in tensors(base).items())


policies = pytest.mark.parametrize("policies", [{}, {"depth": "spread", "width": "even"}], ids=["leading", "even"])


@policies
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("branch", TOKEN_BRANCHES)
def test_every_kind_of_token_layer(branch: str, tied: bool, policies: dict[str, str]) -> None:
    models = (Tokens(sizes, [branch], nn.LayerNorm, tied) for sizes in (SMALL, LARGE))
    assert_exact(*models, WORDS, **policies)


@policies
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("branch", IMAGE_BRANCHES)
def test_every_kind_of_image_layer(branch: str, flat: bool, policies: dict[str, str]) -> None:
    assert_exact(*(Images(sizes, [branch], flat) for sizes in (SMALL, LARGE)), PICTURES, **policies)


@pytest.mark.parametrize("models", [(Tokens, "grouped", WORDS), (Images, "groups", PICTURES)], ids=["tokens", "images"])
def test_in_a_callers_inference_mode_the_map_is_the_same(models: tuple[type[nn.Module], str, Tensor]) -> None:
    make, branch, batch = models
    more = [nn.LayerNorm] if make is Tokens else []
    base, motivated = make(SMALL, [branch], *more), make(LARGE, [branch], *more)
    with torch.inference_mode():
        inside = match(base, motivated, batch=batch, width="even")
    assert inside == match(base, motivated, batch=batch, width="even")


both_policies = st.fixed_dictionaries(
    {"depth": st.sampled_from(["leading", "spread"]), "width": st.sampled_from(["leading", "even"])}
)


@settings(max_examples=25, deadline=None)
@given(token_models(), both_policies)
def test_random_transformers(models: tuple[nn.Module, nn.Module, Tensor], policies: dict[str, str]) -> None:
    assert_exact(*models, **policies)


@settings(max_examples=25, deadline=None)
@given(image_models(), both_policies)
def test_random_convolutional_networks(models: tuple[nn.Module, nn.Module, Tensor], policies: dict[str, str]) -> None:
    assert_exact(*models, **policies)
