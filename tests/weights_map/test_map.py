"""What a weights map does with tensors, models, files and other maps."""

import json
from pathlib import Path

import pytest
import torch
from families import SMALL_FAMILIES, Family
from torch import nn
from zoo import Sizes
from zoo_images import PICTURES, Images
from zoo_tokens import WORDS, Tokens

from seeking import Pair, SeekingError, WeightsMap, match, verify
from seeking.models.resnet import ResNet
from seeking.weights_map import tensors

SMALL = Sizes()


MEDIUM = Sizes(width=6, hidden=7, heads=3, per_group=2, depth=2, words=12)


LARGE = Sizes(width=7, hidden=9, heads=5, per_group=3, depth=4, words=13)


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
        ("[]", "expected a JSON object, found list"),
        ('{"format": "other", "version": 1}', "not a weights map"),
        ('{"format": "seeking.weights_map", "version": 1, "entries": {}}', "not a weights map"),
    ],
)
def test_a_file_that_is_no_map_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(SeekingError, match=message):
        WeightsMap.load(tmp_path / "map.json")


def test_a_target_that_is_mistyped_in_a_file_is_named(tmp_path: Path) -> None:
    match(*SMALL_FAMILIES[0].make()).save(tmp_path / "map.json")
    text = (tmp_path / "map.json").read_text()
    (tmp_path / "map.json").write_text(text.replace('"target": "fc.bias"', '"target": "fc.bais"'))
    with pytest.raises(SeekingError, match=r"map\.json: fc\.bias: target 'fc\.bais' is not a tensor of the motivated"):
        WeightsMap.load(tmp_path / "map.json")


def test_a_map_of_other_models_is_refused() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    other, _ = SMALL_FAMILIES[1].make()
    with pytest.raises(SeekingError, match=r"conv1.weight.*\[8, 3, 3, 3\].*\[16, 3, 3, 3\]"):
        match(base, motivated).check(other, motivated)


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


def test_tied_tensors_stay_tied() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    small, large = tensors(base), tensors(motivated)
    weights_map = match(base, motivated)
    shared = large["fc.weight"]
    result = weights_map.embed(small, {**large, "again": shared})
    assert result["again"] is result["fc.weight"]


@pytest.mark.parametrize("width", ["leading", "even"])
@pytest.mark.parametrize("kind", ["tokens", "images"])
def test_maps_compose(kind: str, width: str) -> None:
    """Small in medium and medium in large: small in large, which verify proves."""
    if kind == "tokens":
        models, batch = [Tokens(s, ["fused", "grouped", "gated"], nn.RMSNorm) for s in (SMALL, MEDIUM, LARGE)], WORDS
    else:
        models, batch = [Images(s, ["groups", "dense", "excited"]) for s in (SMALL, MEDIUM, LARGE)], PICTURES
    small, medium, large = models
    first = match(small, medium, batch=batch, width=width)
    second = match(medium, large, batch=batch, width=width)
    both = first.then(second)
    verdict = verify(small, large, both, batch)
    assert verdict, verdict.reason
    into = {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in tensors(large).items()}
    assert all(torch.equal(t, first.extract(second.extract(into))[n]) for n, t in both.extract(into).items())
    with pytest.raises(SeekingError, match=r"must be the base of the other|no such base tensor"):
        second.then(first)


def test_a_chain_of_three_models_is_two_pairs() -> None:
    """Nested pairs train three models: each enters the next, and the shared part comes back through all."""
    small, medium, large = ResNet(8, width=4), ResNet(8, width=6), ResNet(14, width=8)
    inner, outer = Pair(small, medium, norm="shared"), Pair(medium, large, norm="shared")
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (small, medium, large)]

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model.train()(torch.randn(4, 3, 16, 16)).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step(small, optimizers[0])
        with inner.motivated() as wider:
            step(wider, optimizers[1])
            with outer.motivated() as widest:
                step(widest, optimizers[2])
    both = inner.map.then(outer.map)
    assert all(torch.equal(t, tensors(small)[n]) for n, t in both.extract(tensors(large)).items())


def test_the_table_counts_every_parameter_once() -> None:
    base, motivated = SMALL_FAMILIES[1].make()
    weights_map = match(base, motivated)
    last = str(weights_map).splitlines()[-1].split()
    total, shared, extra = (int(cell.replace(",", "")) for cell in last[2:5])
    assert total == sum(p.numel() for p in motivated.parameters())
    assert shared == sum(p.numel() for p in base.parameters())
    assert extra == total - shared
    assert len(weights_map.details().splitlines()) == 1 + len(tensors(base))
