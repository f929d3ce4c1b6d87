"""One model started from the other's weights, and maps that follow each other."""

import copy
import dataclasses
import re
from pathlib import Path

import pytest
import torch
from families import SMALL_FAMILIES
from hypothesis import given, settings
from safetensors.torch import load_file, save_model
from timm.models.metaformer import MetaFormer
from torch import Tensor, nn
from zoo import IMAGE_BRANCHES, PICTURES, TOKEN_BRANCHES, WORDS, Images, Sizes, Tokens, image_models, token_models

import seeking
from seeking import MatchWarning, Pair, SeekingError, match, verify
from seeking.cli import main
from seeking.data import load
from seeking.experiments import RunConfig, trainer
from seeking.models import create
from seeking.models.resnet import ResNet
from seeking.weights_map import tensors

SMALL = Sizes()
MEDIUM = Sizes(width=6, hidden=7, heads=3, per_group=2, depth=2, words=12)
LARGE = Sizes(width=7, hidden=9, heads=5, per_group=3, depth=4, words=13)


def outputs(model: nn.Module, batch: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = model.eval()(batch)
    return result


ALL_CHANNELS = ("group norm", "channel attention")
"""Branches in which the base's channels look at the extra ones."""


@pytest.mark.parametrize("branch", sorted(IMAGE_BRANCHES.keys() - ALL_CHANNELS))
def test_a_neutral_start_is_the_base_and_can_learn(branch: str) -> None:
    torch.manual_seed(3)
    base, motivated = Images(SMALL, [branch]), Images(LARGE, [branch])
    own = {name: tensor.clone() for name, tensor in tensors(motivated).items()}
    weights_map = seeking.embed(base, motivated, batch=PICTURES)
    assert torch.allclose(outputs(base, PICTURES), outputs(motivated, PICTURES), atol=1e-6)
    assert all(torch.equal(weights_map.extract(tensors(motivated))[n], t) for n, t in tensors(base).items())
    kept = sum(torch.equal(own[name], tensor) for name, tensor in motivated.named_parameters())
    assert kept > 0, "extra capacity keeps its own initialisation where it can"

    before = {name: parameter.clone() for name, parameter in motivated.named_parameters()}
    optimizer = torch.optim.SGD(motivated.parameters(), lr=0.1)
    motivated.train()
    for _ in range(4):
        optimizer.zero_grad()
        motivated(PICTURES + torch.randn_like(PICTURES)).square().sum().backward()
        optimizer.step()
    still = [n for n, p in motivated.named_parameters() if torch.equal(p, before[n])]
    # A bias before a batch norm has no gradient but for rounding; squeezed channels may all be cut off by their ReLU.
    assert all(name.endswith("bias") or "squeeze" in name or "excite" in name for name in still), still


def test_a_deeper_transformer_starts_as_the_base() -> None:
    deeper = dataclasses.replace(SMALL, depth=4)
    for branch in TOKEN_BRANCHES:
        base, motivated = Tokens(SMALL, [branch], nn.LayerNorm), Tokens(deeper, [branch], nn.LayerNorm)
        with_own = copy.deepcopy(motivated)
        seeking.embed(base, motivated, batch=WORDS)
        assert torch.equal(outputs(base, WORDS), outputs(motivated, WORDS))
        seeking.embed(base, with_own, extra="own", batch=WORDS)
        assert not torch.allclose(outputs(base, WORDS), outputs(with_own, WORDS))


def test_what_cannot_start_as_the_base_is_said() -> None:
    base, motivated = Tokens(SMALL, ["mlp"], nn.LayerNorm), Tokens(LARGE, ["mlp"], nn.LayerNorm)
    with pytest.warns(MatchWarning, match="look at all channels"):
        seeking.embed(base, motivated, batch=WORDS)
    for branch in ALL_CHANNELS:
        with pytest.warns(MatchWarning, match="look at all channels"):
            seeking.embed(Images(SMALL, [branch]), Images(LARGE, [branch]), batch=PICTURES)


def test_blocks_that_scale_their_input_start_as_the_identity() -> None:
    kwargs = {"num_classes": 3, "dims": (8, 8, 8, 8), "res_scale_init_values": (None, None, 1.0, 1.0)}
    base, motivated = (MetaFormer(depths=depths, **kwargs) for depths in ((1, 1, 1, 1), (1, 2, 3, 1)))
    batch = torch.randn(1, 3, 64, 64)
    weights_map = match(base, motivated, batch=batch)
    assert verify(base, motivated, weights_map, batch)
    seeking.embed(base, motivated, weights_map, batch=batch)
    assert torch.equal(outputs(base, batch), outputs(motivated, batch))
    assert motivated.stages[2].blocks[2].mlp.fc1.weight.abs().sum() > 0


def test_a_run_may_begin_with_neutral_extra_capacity() -> None:
    config = RunConfig(base_kwargs={"width": 4}, motivated_kwargs={"width": 6}, max_train_samples=64)
    data = load(config)
    x = torch.randn(4, *data.shape)
    for extra in ("own", "neutral"):
        pair = trainer(dataclasses.replace(config, extra=extra), data).pair
        assert pair
        with torch.no_grad(), pair.motivated() as motivated:
            same = torch.allclose(motivated.eval()(x), pair.base.eval()(x), atol=1e-5)
        assert same == (extra == "neutral")


def test_its_own_initialisation_is_left_alone() -> None:
    base, motivated = ResNet(8, width=4), ResNet(14, width=6)
    own = {name: tensor.clone() for name, tensor in tensors(motivated).items()}
    weights_map = seeking.embed(base, motivated, extra="own")
    marked = weights_map.embed(
        {n: torch.ones_like(t) for n, t in tensors(base).items()}, {n: torch.zeros_like(t) for n, t in own.items()}
    )
    assert all(torch.equal(t[marked[n] == 0], own[n][marked[n] == 0]) for n, t in tensors(motivated).items())
    with pytest.raises(SeekingError, match="unknown kind of extra capacity 'neutrl'; did you mean neutral"):
        seeking.embed(base, motivated, extra="neutrl")


@pytest.mark.parametrize("width", ["leading", "even"])
def test_extract_is_the_start_of_the_base(width: str) -> None:
    base, motivated = ResNet(8, width=4), ResNet(14, width=8)
    weights_map = match(base, motivated, width=width)
    seeking.extract(motivated, base, weights_map)
    step = 2 if width == "even" else 1
    assert torch.equal(base.conv1.weight, motivated.conv1.weight[: 4 * step : step])
    assert verify(base, motivated, weights_map, torch.randn(1, 3, 16, 16))


@settings(max_examples=10, deadline=None)
@given(token_models())
def test_what_was_embedded_is_extracted_tokens(models: tuple[nn.Module, nn.Module, Tensor]) -> None:
    there_and_back(*models)


@settings(max_examples=10, deadline=None)
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


def test_a_chain_of_three_is_two_pairs() -> None:
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


def test_files_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, motivated = (create(name, num_classes=10) for name in ("resnet8", "resnet14"))
    save_model(base, str(tmp_path / "base.safetensors"))
    names = ["resnet8", "resnet14"]
    started, cut = tmp_path / "started.safetensors", tmp_path / "cut.safetensors"
    weights = ["--weights", str(tmp_path / "base.safetensors")]
    assert main(["embed", *names, *weights, "--output", str(started)]) == 0
    assert main(["extract", *names, "--weights", str(started), "--output", str(cut)]) == 0
    assert all(torch.equal(tensor, load_file(cut)[name]) for name, tensor in base.state_dict().items())
    torch.save({"state_dict": motivated.state_dict()}, tmp_path / "large.pt")
    command = ["extract", *names, "--weights", str(tmp_path / "large.pt"), "--output"]
    assert main([*command, str(cut)]) == 2
    assert "exists; name another file" in capsys.readouterr().err
    assert main([*command, str(cut), "--overwrite"]) == 0
    assert torch.equal(load_file(cut)["conv1.weight"], motivated.conv1.weight)

    other = str(tmp_path / "other.safetensors")
    for bad, message in [
        (str(tmp_path / "no.safetensors"), "no.safetensors: .*No such file"),
        (str(tmp_path / "base.safetensors"), "not weights of this ResNet"),
        (__file__, "not a file of weights"),
    ]:
        assert main(["extract", *names, "--weights", bad, "--output", other]) == 2
        error = capsys.readouterr().err
        assert re.search(message, error), error
    assert not Path(other).exists()
    assert main(["embed", *names, *weights, "--output", str(tmp_path / "no" / "folder.safetensors")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_tied_tensors_stay_tied() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    ours, theirs = tensors(base), tensors(motivated)
    weights_map = match(base, motivated)
    shared = theirs["fc.weight"]
    result = weights_map.embed(ours, {**theirs, "again": shared})
    assert result["again"] is result["fc.weight"]
