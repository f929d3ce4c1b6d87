"""Maps of models of libraries, found and proven, and what cannot be contained."""

import functools
import warnings
from typing import Any

import pytest
import torch
import torchvision
from checks import assert_exact, assert_invertible
from families import FAMILIES, SMALL_FAMILIES, TINY, Family
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from zoo import Sizes
from zoo_tokens import WORDS, Tokens

from seeking import MatchWarning, NotContainedError, Pair, SeekingError, embed, extract, match, verify
from seeking.models import create
from seeking.models.resnet import ResNet
from seeking.weights_map import tensors

POLICIES = [("leading", "leading"), ("spread", "even")]


# Those that follow each other are alike, so that each kind of model meets both policies.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "depth", "width"),
    [pytest.param(f, *POLICIES[n % 2], id=f"{f}-{'-'.join(POLICIES[n % 2])}") for n, f in enumerate(FAMILIES)],
)
def test_every_family_is_exact_and_its_map_inverts(family: Family, depth: str, width: str) -> None:
    base, motivated = family.make()
    weights_map = match(base, motivated, depth=depth, width=width)
    images = torch.randn(2, 3, family.size, family.size)
    verdict = verify(base, motivated, weights_map, images)
    assert verdict, verdict.reason
    assert verdict.difference < 1e-5
    assert_invertible(weights_map, base, motivated)


@pytest.mark.slow
@settings(max_examples=8)
@given(st.data())
def test_random_resnets_are_exact(data: st.DataObject) -> None:
    depth = data.draw(st.sampled_from([8, 14, 20]))
    larger = data.draw(st.sampled_from([d for d in (8, 14, 20, 26) if d >= depth]))
    width = data.draw(st.integers(1, 9))
    wider = data.draw(st.integers(width, 14))
    base, motivated = ResNet(depth, 5, 2, width), ResNet(larger, 5, 2, wider)
    weights_map = match(
        base,
        motivated,
        depth=data.draw(st.sampled_from(["leading", "spread"])),
        width=data.draw(st.sampled_from(["leading", "even"])),
    )
    assert verify(base, motivated, weights_map, torch.randn(3, 2, 8, 8))
    assert_invertible(weights_map, base, motivated)


@pytest.mark.slow
@settings(max_examples=8)
@given(st.data())
def test_random_vision_transformers_are_exact(data: st.DataObject) -> None:
    head, heads, depth = (data.draw(st.integers(1, 4)) for _ in range(3))
    more_heads, deeper = data.draw(st.integers(heads, 7)), data.draw(st.integers(depth, 5))

    def make(heads: int, depth: int) -> nn.Module:
        return VisionTransformer(
            img_size=8, patch_size=4, embed_dim=4 * head * heads, depth=depth, num_heads=heads, num_classes=3
        )

    base, motivated = make(heads, depth), make(more_heads, deeper)
    weights_map = match(
        base,
        motivated,
        depth=data.draw(st.sampled_from(["leading", "spread"])),
        width=data.draw(st.sampled_from(["leading", "even"])),
    )
    verdict = verify(base, motivated, weights_map, torch.randn(2, 3, 8, 8))
    assert verdict, verdict.reason
    assert_invertible(weights_map, base, motivated)


@pytest.mark.parametrize(
    ("base", "motivated", "message"),
    [
        (
            "resnet34",
            "resnet50",
            r"layer1\.0\.conv1\.weight, dimension 2: 3 in the base, 1 .*BasicBlock.*Bottleneck",
        ),
        ("resnet14", "resnet8", r"layer1: the base has 2 blocks, the motivated model 1"),
        ("efficientnet_b2", "efficientnet_b0", r"the base has \d+ blocks, the motivated model \d+"),
        ("resnet8", "vit_tiny_patch16_224", r"conv1 \(Conv2d\): the motivated model has no module conv1"),
        (
            "vit_small_patch16_224",
            "vit_tiny_patch16_224",
            r"cls_token, dimension 2: 384 .*, 192 .* is smaller",
        ),
    ],
)
def test_what_cannot_be_contained_is_named(base: str, motivated: str, message: str) -> None:
    with pytest.raises(NotContainedError, match=message):
        match(create(base, num_classes=10), create(motivated, num_classes=10))


def test_heads_of_another_size_and_other_lengths_are_refused() -> None:
    kwargs = {"img_size": 16, "patch_size": 8, "depth": 1, "num_classes": 10}
    base = create(TINY, embed_dim=12, num_heads=3, **kwargs)
    with pytest.raises(NotContainedError, match=r"size of a head is 4 in the base and 8 .* with heads of 4 could"):
        match(base, create(TINY, embed_dim=24, num_heads=3, **kwargs))
    with pytest.warns(MatchWarning, match="cannot be run without data"):  # The motivated model, on the base's images.
        with pytest.raises(NotContainedError, match=r"pos_embed, dimension 1: 5 in the base, 17 .*positions"):
            match(base, create(TINY, embed_dim=24, num_heads=6, **{**kwargs, "img_size": 32}))
    with pytest.raises(NotContainedError, match="different numbers of classes: the base has 10, the motivated model 7"):
        match(base, create(TINY, embed_dim=24, num_heads=6, **{**kwargs, "num_classes": 7}))


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (torch.ones(2, 5), r"shapes cannot be multiplied \(2x5 and 4x3\)"),
        ((torch.ones(2, 4), torch.ones(2)), "takes 2 positional arguments but 3 were given"),
        (torch.ones(2, 4).numpy(), "must be Tensor, not numpy.ndarray"),
    ],
)
def test_a_batch_on_which_the_base_does_not_run_is_refused(batch: object, reason: str) -> None:
    base, motivated = (nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)) for width in (3, 6))
    message = rf"the base \(Sequential\) does not run on the batch, in evaluation mode: \w+: .*{reason}.*\nGive what it"
    for function in (match, Pair, functools.partial(extract, motivated, base), embed):
        models = () if isinstance(function, functools.partial) else (base, motivated)
        with pytest.raises(SeekingError, match=message):
            function(*models, batch=batch)
    assert match(base, motivated, batch=batch, forward=lambda model, _: model(torch.ones(2, 4)))


class Repeated(nn.Module):
    """One layer in several places, under two names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(4, width), nn.Linear(width, 2)
        self.middle = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.again = self.middle

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.middle(self.enter(x))
        return self.leave(self.again(x) + self.middle(x))


@pytest.mark.parametrize("width", ["leading", "even"])
def test_a_module_used_in_several_places_is_exact(width: str) -> None:
    base, motivated = Repeated(3), Repeated(7)
    before = [(name, id(tensor), tensor.clone()) for name, tensor in tensors(motivated).items()]
    weights_map = match(base, motivated, width=width)
    assert {"again.0.weight", "middle.0.weight"} <= weights_map.entries.keys()
    assert verify(base, motivated, weights_map, torch.randn(3, 4))
    assert [(n, id(t)) for n, t in tensors(motivated).items()] == [(n, i) for n, i, _ in before], "put back"
    assert all(torch.equal(tensors(motivated)[name], tensor) for name, _, tensor in before)


def test_other_rates_of_dropout_are_not_silent() -> None:
    size = {"img_size": 16, "patch_size": 8, "num_classes": 3, "embed_dim": 8, "num_heads": 2, "depth": 2}
    base = VisionTransformer(**size, drop_path_rate=0.1)
    with pytest.warns(MatchWarning, match=r"differs in 2 shared layers \(blocks.1.drop_path1: 0.1 in the base, 0.05"):
        match(base, VisionTransformer(**{**size, "depth": 3}, drop_path_rate=0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        match(base, VisionTransformer(**size, drop_path_rate=0.1))


def test_other_rates_of_stochastic_depth_of_torchvision_are_not_silent() -> None:
    def make(width: int, rate: float) -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), torchvision.ops.StochasticDepth(rate, "row"), nn.Linear(width, 2))

    with pytest.warns(MatchWarning, match=r"differs in 1 shared layers \(1: 0.1 in the base, 0.2"):
        match(make(3, 0.1), make(5, 0.2), batch=torch.randn(2, 4))


def test_a_vocabulary_grows_at_its_end() -> None:
    base, motivated = (Tokens(Sizes(words=words), ["mlp"], nn.LayerNorm) for words in (11, 13))
    weights_map = match(base, motivated, batch=WORDS, width="even")
    assert str(weights_map.entries["words.weight"].index[0]) == "0:11"
    assert verify(base, motivated, weights_map, WORDS)


def test_parameters_without_entries_are_mapped() -> None:
    class Empty(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.none, self.out = nn.Parameter(torch.randn(width, 0)), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x)

    assert_exact(Empty(3), Empty(4), torch.randn(4, 8))


def test_unknown_policies_are_refused() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    with pytest.raises(SeekingError, match="unknown depth policy 'leadin'; did you mean leading"):
        match(base, motivated, depth="leadin")
    with pytest.raises(SeekingError, match="unknown width policy"):
        match(base, motivated, width="odd")


class Remembering(nn.Module):
    """A loss that keeps the mean of its values, in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, model: nn.Module, batch: Any) -> Tensor:
        loss = model(batch).square().mean()
        if model.training:
            self.mean = 0.9 * self.mean + 0.1 * loss.detach()
        return loss + self.mean


@pytest.mark.parametrize("kind", ["module", "method", "closure", "partial"])
def test_a_forward_with_state_is_left_as_it_is(kind: str) -> None:
    """Of models with a head that only training uses, which are traced and compared in training mode, too."""

    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.out, self.aux = nn.Linear(3, width), nn.Linear(width, 2), nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x).relu()
            return self.out(hidden) + self.aux(hidden) if self.training else self.out(hidden)

    loss = Remembering()
    forward: Any = {
        "module": loss,
        "method": loss.forward,
        "closure": lambda model, batch: loss(model, batch),
        "partial": functools.partial(lambda loss, model, batch: loss(model, batch), loss),
    }[kind]
    models = Net(4), Net(6)
    weights_map = match(*models, batch=torch.randn(2, 3), forward=forward)
    assert verify(*models, weights_map, torch.randn(2, 3), forward=forward)
    assert loss.mean.device.type == "cpu"
    assert loss.mean == 0


def test_a_head_that_only_training_uses_reads_the_channels_of_the_base() -> None:
    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(3, width), nn.BatchNorm1d(width)
            self.out, self.aux = nn.Linear(width, 2), nn.Linear(2 * width, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.norm(self.first(x)).relu()
            return self.out(hidden) + self.aux(torch.cat([hidden, hidden], 1)) if self.training else self.out(hidden)

    motivated = Net(6)
    inside = match(Net(4), motivated).extract(motivated.state_dict())
    assert torch.equal(inside["aux.weight"], motivated.aux.weight[:, [0, 1, 2, 3, 6, 7, 8, 9]])


def test_a_refusal_says_if_it_is_of_no_batch_of_the_users() -> None:
    class Mixer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.leave(torch.fft.fft(self.enter(x), dim=1).real)
            return y

    with pytest.raises(NotContainedError, match=r"Fourier.*run on an input of shape \[2, 3\]; give match a batch"):
        match(Mixer(4), Mixer(6))
    assert match(Mixer(4), Mixer(6), batch=torch.randn(2, 5, 3)).entries
