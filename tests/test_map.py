import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from families import FAMILIES, SMALL_FAMILIES, TINY, Family
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from zoo import WORDS, Sizes, Tokens

from seeking import MatchWarning, NotContainedError, Override, SeekingError, WeightsMap, match, verify
from seeking.matching import Factor, rule
from seeking.matching.align import align
from seeking.matching.module_rules import RULES
from seeking.models import create
from seeking.models.resnet import ResNet
from seeking.weights_map import tensors

policies = pytest.mark.parametrize(
    ("depth", "width"), [("leading", "leading"), ("spread", "even")], ids=["leading", "spread-even"]
)


def assert_identity(weights_map: WeightsMap, base: nn.Module, motivated: nn.Module) -> None:
    """Embedded and extracted, the base's tensors are what they were, and nothing else has changed."""
    ours, theirs = tensors(base), tensors(motivated)
    embedded = weights_map.embed(ours, theirs)
    extracted = weights_map.extract(embedded)
    assert extracted.keys() == ours.keys()
    assert all(torch.equal(extracted[name], tensor) for name, tensor in ours.items())
    marked = weights_map.embed({n: torch.ones_like(t) for n, t in ours.items()}, {n: t * 0 for n, t in theirs.items()})
    shared = {entry.target: math.prod(entry.shape) for entry in weights_map.entries.values()}
    assert {n: int(t.sum()) for n, t in marked.items()} == {n: shared.get(n, 0) for n in theirs}
    assert all(torch.equal(embedded[n][marked[n] == 0], t[marked[n] == 0]) for n, t in theirs.items())


@policies
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_family_is_exact_and_its_map_inverts(family: Family, depth: str, width: str) -> None:
    base, motivated = family.make()
    weights_map = match(base, motivated, depth=depth, width=width)
    images = torch.randn(2, 3, family.size, family.size)
    verdict = verify(base, motivated, weights_map, images)
    assert verdict, verdict.reason
    assert verdict.difference < 1e-5
    assert_identity(weights_map, base, motivated)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_random_resnets(data: st.DataObject) -> None:
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
    assert_identity(weights_map, base, motivated)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_random_vision_transformers(data: st.DataObject) -> None:
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
    assert_identity(weights_map, base, motivated)


@pytest.mark.parametrize("family", SMALL_FAMILIES, ids=str)
def test_a_saved_map_is_the_same_and_readable(family: Family, tmp_path: Path) -> None:
    base, motivated = family.make()
    weights_map = match(base, motivated, depth="spread", width="even")
    weights_map.save(tmp_path / "map.json")
    loaded = WeightsMap.load(tmp_path / "map.json")
    assert loaded == weights_map
    loaded.check(base, motivated)
    assert json.loads((tmp_path / "map.json").read_text())["entries"][
        "conv1.weight" if "resnet" in family.base else "cls_token"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[]", "a JSON object is expected, found list"),
        ('{"format": "other", "version": 1}', "this program reads"),
        ('{"format": "seeking.weights_map", "version": 1, "entries": {}}', "not a weights map"),
    ],
)
def test_a_file_that_is_no_map_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(SeekingError, match=message):
        WeightsMap.load(tmp_path / "map.json")


def test_a_map_of_other_models_is_refused() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    other, _ = SMALL_FAMILIES[1].make()
    with pytest.raises(SeekingError, match=r"conv1.weight.*\[8, 3, 3, 3\].*\[16, 3, 3, 3\]"):
        match(base, motivated).check(other, motivated)


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


def test_overrides_of_names_and_indices() -> None:
    base, motivated = ResNet(8, width=4), ResNet(14, width=8)
    chosen = {"layer2.0": Override(target="layer2.0"), "fc.weight": Override(index=[None, "16:32"])}
    weights_map = match(base, motivated, overrides=chosen)
    assert str(weights_map.entries["fc.weight"].index[1]) == "16:32"
    assert weights_map.entries["fc.weight"].origin == "user"
    assert weights_map.entries["fc.bias"].origin == "structure"
    assert not verify(base, motivated, weights_map, torch.randn(1, 3, 16, 16))
    # The inputs of layer2.1 are not those of a first block.
    for name, target in (("layer2.0", "layer2.1"), ("layer2.0", "layer3.0.conv1")):
        with pytest.raises(NotContainedError, match="layer2"):
            match(base, motivated, overrides={name: Override(target=target)})
    with pytest.raises(SeekingError, match=r"names 2 positions, the base tensor has 16"):
        match(base, motivated, overrides={"fc.weight": Override(index=[None, [1, 2]])})
    with pytest.raises(SeekingError, match=r"leaves the dimension's size 32"):
        match(base, motivated, overrides={"fc.weight": Override(index=[None, "20:36"])})
    with pytest.raises(SeekingError, match=r"'fc.wait'; did you mean fc.weight"):
        match(base, motivated, overrides={"fc.wait": Override(target="fc.bias")})


def test_a_whole_space_is_pinned() -> None:
    base, motivated = ResNet(8, width=4), ResNet(14, width=8)
    chosen = {"layer3.0.conv1.weight": Override(index=["1:32:2", None, None, None], space=True)}
    weights_map = match(base, motivated, overrides=chosen)
    entries = weights_map.entries
    assert str(entries["layer3.0.bn1.running_var"].index[0]) == "1:32:2"
    assert str(entries["layer3.0.conv2.weight"].index[1]) == "1:32:2"
    assert entries["layer3.0.conv2.weight"].origin == "user"
    assert entries["layer3.0.bn2.weight"].origin == "structure"
    assert verify(base, motivated, weights_map, torch.randn(1, 3, 16, 16))

    small, large = SMALL_FAMILIES[2].make()
    with pytest.raises(SeekingError, match=r"qkv.weight, dimension 0: several channel spaces meet"):
        match(small, large, overrides={"blocks.0.attn.qkv.weight": Override(index=[list(range(36)), None], space=True)})
    with pytest.raises(SeekingError, match="length of the output is the same in both models; there is nothing to pin"):
        match(base, motivated, overrides={"fc.weight": Override(index=["0:10", None], space=True)})


class Branching(nn.Module):
    """Looks at its activations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(x if x.sum() > 0 else x.relu())


def test_a_model_that_looks_at_its_activations_is_matched_by_names() -> None:
    base, motivated = Branching(3), Branching(5)
    with pytest.warns(MatchWarning, match=r"Branching: the channel spaces are unknown.*meta tensors.*verify"):
        weights_map = match(base, motivated, batch=torch.randn(2, 4))
    assert weights_map.entries["first.weight"].origin == "name"
    assert verify(base, motivated, weights_map, torch.randn(2, 4))


class Unrunnable(VisionTransformer):
    """A vision transformer that looks at its activations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() < 1e9 else x[:1]) if float(self.head.weight.sum()) < 1e9 else x


def test_rules_do_where_the_graph_is_unknown() -> None:
    sizes = {"img_size": 16, "patch_size": 8, "num_classes": 3}
    base = Unrunnable(embed_dim=8, num_heads=2, depth=2, **sizes)
    motivated = Unrunnable(embed_dim=16, num_heads=4, depth=3, **sizes)
    images = torch.randn(1, 3, 16, 16)
    with pytest.warns(MatchWarning, match="unknown"):
        weights_map = match(base, motivated, batch=images)
    assert weights_map.entries["blocks.0.attn.qkv.weight"].origin == "rule: fused attention"
    assert verify(base, motivated, weights_map, images)


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
def test_a_module_used_in_several_places(width: str) -> None:
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


@pytest.mark.parametrize("depth", ["leading", "spread"])
def test_kinds_of_blocks_that_alternate_keep_alternating(depth: str) -> None:
    def make(length: int) -> nn.Module:
        return nn.Sequential(
            *(nn.Linear(4, 4) if place % 2 else nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for place in range(length))
        )

    places = align(make(4), make(9), depth)
    chosen = [int(places[str(place)]) for place in range(4)]
    assert [place % 2 for place in chosen] == [0, 1, 0, 1]
    assert chosen == sorted(set(chosen))
    assert chosen == [0, 1, 2, 3] or (depth == "spread" and chosen[-1] > 4)


def test_a_vocabulary_grows_at_its_end() -> None:
    base, motivated = (Tokens(Sizes(words=words), ["mlp"], nn.LayerNorm) for words in (11, 13))
    weights_map = match(base, motivated, batch=WORDS, width="even")
    assert str(weights_map.entries["words.weight"].index[0]) == "0:11"
    assert verify(base, motivated, weights_map, WORDS)


def test_unknown_policies_are_refused() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    with pytest.raises(SeekingError, match="unknown depth policy 'leadin'; did you mean leading"):
        match(base, motivated, depth="leadin")
    with pytest.raises(SeekingError, match="unknown width policy"):
        match(base, motivated, width="odd")


def test_embed_takes_any_tensors_keyed_by_parameter_and_refuses_others() -> None:
    base, motivated = SMALL_FAMILIES[1].make()
    weights_map = match(base, motivated)
    momentum = {name: torch.randn_like(parameter) for name, parameter in base.named_parameters()}
    into = {name: torch.zeros_like(parameter) for name, parameter in motivated.named_parameters()}
    embedded = weights_map.embed(momentum, into)
    assert all((tensor == 0).all() for tensor in into.values()), "the argument is not changed"
    assert all(torch.equal(momentum[n], t) for n, t in weights_map.extract(embedded).items())
    with pytest.raises(SeekingError, match="no such base tensor"):
        weights_map.embed({"nothing": torch.zeros(1)}, into)
    with pytest.raises(SeekingError, match=r"fc.bias: shape \[3\] where the map has \[10\]"):
        weights_map.embed({"fc.bias": torch.zeros(3)}, into)


def test_the_table_counts_every_parameter_once() -> None:
    base, motivated = SMALL_FAMILIES[1].make()
    weights_map = match(base, motivated)
    last = str(weights_map).splitlines()[-1].split()
    total, shared, extra = (int(cell.replace(",", "")) for cell in last[2:5])
    assert total == sum(p.numel() for p in motivated.parameters())
    assert shared == sum(p.numel() for p in base.parameters())
    assert extra == total - shared
    assert len(weights_map.details().splitlines()) == 1 + len(tensors(base))


@torch.library.custom_op("seeking_tests::halves", mutates_args=())
def halves(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The product of two halves: a kernel of one's own, inside which no trace sees."""
    first, second = (x @ weight.T).chunk(2, dim=-1)
    return first * second


@halves.register_fake
def _(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0] // 2)


class Halves(nn.Module):
    """Made up: its weight holds two halves, which only its kernel takes apart."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features * 2, 4))
        self.out = nn.Linear(features, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(halves(x, self.weight))


def test_a_rule_of_ones_own() -> None:
    base, motivated = Halves(3), Halves(5)
    batch = torch.randn(2, 4)
    assert not verify(base, motivated, match(base, motivated, batch=batch), batch)

    @rule
    def two_halves(module: nn.Module) -> dict[str, list[list[Factor]]] | None:
        if not isinstance(module, Halves):
            return None
        rows = [Factor("halves", 2, grows=False), Factor("features", module.out.in_features)]
        return {"weight": [rows, [Factor("inputs", 4)]]}

    try:
        weights_map = match(base, motivated, batch=batch)
    finally:
        RULES.remove(two_halves)
    assert weights_map.entries["weight"].origin == "rule: two halves"
    assert str(weights_map.entries["weight"].index[0]) == "0:3, 5:8"
    assert verify(base, motivated, weights_map, batch)
