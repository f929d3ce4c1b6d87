"""Maps of random networks, made of every kind of layer."""

import pytest
from checks import assert_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from zoo import Sizes
from zoo_images import IMAGE_BRANCHES, PICTURES, Images, image_models
from zoo_tokens import TOKEN_BRANCHES, WORDS, Tokens, token_models

SMALL = Sizes()


LARGE = Sizes(width=7, hidden=9, heads=5, per_group=3, depth=3, words=13)


# The random networks below have all four.
both = [(True, {}), (False, {"depth": "spread", "width": "even"})]


@pytest.mark.parametrize(("tied", "policies"), both, ids=["tied-leading", "even"])
@pytest.mark.parametrize("branch", TOKEN_BRANCHES)
def test_every_kind_of_token_layer_is_exact(branch: str, tied: bool, policies: dict[str, str]) -> None:
    models = (Tokens(sizes, [branch], nn.LayerNorm, tied) for sizes in (SMALL, LARGE))
    assert_exact(*models, WORDS, **policies)


@pytest.mark.parametrize(("flat", "policies"), both, ids=["flat-leading", "even"])
@pytest.mark.parametrize("branch", IMAGE_BRANCHES)
def test_every_kind_of_image_layer_is_exact(branch: str, flat: bool, policies: dict[str, str]) -> None:
    assert_exact(*(Images(sizes, [branch], flat) for sizes in (SMALL, LARGE)), PICTURES, **policies)


@pytest.mark.slow
@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3), st.sampled_from(["leading", "even"]))
def test_groups_of_a_norm_are_kept_whatever_their_size(
    groups: int, channels: int, more_groups: int, more_channels: int, width: str
) -> None:
    """Also where a group has one channel, so that nothing in the base tells groups from channels."""

    def network(groups: int, channels: int) -> nn.Module:
        inner = groups * channels
        return nn.Sequential(nn.Conv2d(3, inner, 1), nn.GroupNorm(groups, inner), nn.Tanh(), nn.Conv2d(inner, 2, 1))

    more_groups *= groups > 1  # A norm over all channels is not one over several groups of more.
    large = network(groups + more_groups, channels + more_channels)
    assert_exact(network(groups, channels), large, PICTURES, width=width)


both_policies = st.fixed_dictionaries(
    {"depth": st.sampled_from(["leading", "spread"]), "width": st.sampled_from(["leading", "even"])}
)


@pytest.mark.slow
@settings(max_examples=15)
@given(token_models(), both_policies)
def test_random_transformers_are_exact(models: tuple[nn.Module, nn.Module, Tensor], policies: dict[str, str]) -> None:
    assert_exact(*models, **policies)


@pytest.mark.slow
@settings(max_examples=15)
@given(image_models(), both_policies)
def test_random_convolutional_networks_are_exact(
    models: tuple[nn.Module, nn.Module, Tensor], policies: dict[str, str]
) -> None:
    assert_exact(*models, **policies)
