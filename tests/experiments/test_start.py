"""Runs that start from weights: timm's pretrained ones, and files."""

import dataclasses
import functools
import math
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import seeking
from seeking import SeekingError
from seeking.checkpointing.weights import save_weights
from seeking.cli import main
from seeking.data import load
from seeking.errors import RunWarning
from seeking.experiments import start
from seeking.experiments.run import RunConfig, arguments, trainer
from seeking.experiments.start import ModelArguments, initial_models, shared_from, sources
from seeking.experiments.tasks.images import ImagesOfRun
from seeking.models import arguments_for, create
from seeking.models.heads import arguments_of_weights, growing, shapes_of
from seeking.models.resnet import ResNet
from seeking.training import RunFolder
from seeking.weights_map import tensors

RESNETS = RunConfig(base_kwargs={"width": 4}, motivated_kwargs={"width": 6}, max_train_samples=64, epochs=1)
SIZE = {"img_size": 8, "patch_size": 4, "depth": 1}
VITS = RunConfig(base="vit_tiny_patch16_224", motivated="vit_small_patch16_224", model_kwargs=SIZE, epochs=1)
SIZES: dict[str, dict[str, Any]] = {"base": {"depth": 8, "width": 4}, "motivated": {"depth": 14, "width": 6}}


@pytest.fixture(scope="module")
def digits() -> ImagesOfRun:
    return ImagesOfRun(load(RESNETS))


def file_of(model: str, folder: Path, classes: int = 10, seed: int = 5) -> Path:
    torch.manual_seed(seed)
    path = folder / f"{model}-{classes}.safetensors"
    save_weights(ResNet(**SIZES[model], num_classes=classes, in_chans=1), path)
    return path


def same(model: nn.Module, state: Mapping[str, Tensor], but: str = "fc") -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in tensors(model).items() if but not in name)


@settings(max_examples=8)
@given(narrow=st.integers(1, 4), more=st.integers(0, 3), owner=st.sampled_from(("base", "motivated")))
def test_the_shared_part_is_the_owners_and_nothing_of_the_owner_changes(narrow: int, more: int, owner: Any) -> None:
    base, motivated = ResNet(8, width=narrow), ResNet(14, width=narrow + more)
    models = {"base": base, "motivated": motivated}
    before = {name: tensor.clone() for name, tensor in tensors(models[owner]).items()}
    pair = seeking.Pair(base, motivated, shared_from=owner)
    for role, model in models.items():
        kept = tensors(model).items() if role == owner else ()
        assert all(torch.equal(before[name], tensor) for name, tensor in kept)
    part = pair.map.extract(tensors(motivated))
    assert all(torch.equal(part[name], tensor) for name, tensor in tensors(base).items() if "running" not in name)


def test_an_unknown_owner_is_refused() -> None:
    with pytest.raises(SeekingError, match="did you mean motivated"):
        seeking.Pair(ResNet(8), ResNet(14), shared_from="motivate")  # type: ignore[arg-type]
    with pytest.raises(SeekingError, match=r"extra neutral .* shared_from motivated"):
        seeking.TrainConfig(extra="neutral", shared_from="motivated")


def plan(**changes: Any) -> ModelArguments:
    return arguments(dataclasses.replace(RESNETS, **changes), {"num_classes": 10, "in_chans": 1})


def test_what_each_model_starts_from(tmp_path: Path) -> None:
    base, motivated = (str(file_of(model, tmp_path)) for model in SIZES)
    both = {"base": "pretrained", "motivated": "pretrained"}
    assert sources((), False, plan()) == {}
    assert sources((), True, plan()) == both == sources(("base", "motivated"), False, plan())
    assert (
        sources(("motivated",), True, plan()) == {"motivated": "pretrained"} == sources(("motivated",), False, plan())
    )
    assert sources((f"base={base}", "motivated"), True, plan()) == {"base": base, "motivated": "pretrained"}
    assert sources((base, motivated), False, plan()) == {"base": base, "motivated": motivated}
    assert sources((), False, plan(base_kwargs={"width": 4, "pretrained": True})) == {"base": "pretrained"}
    with pytest.raises(SeekingError, match="the base model starts from pretrained and from"):
        sources(("base", base), False, plan())
    with pytest.raises(SeekingError, match="name the one that starts from pretrained weights as well"):
        sources((base,), True, plan())
    with pytest.raises(SeekingError, match="fit both models; say whose they are: base="):
        sources((base,), False, plan(motivated="resnet8", motivated_kwargs={"width": 4}))
    with pytest.raises(SeekingError, match=r"fit neither model; base=.* tells what does not fit"):
        sources((base,), False, plan(base_kwargs={"width": 5}))
    with pytest.raises(SeekingError, match="cannot be read"):
        sources(("missing.safetensors",), False, plan())


@pytest.mark.parametrize(("classes", "most"), [(10, 2), (7, 3)])
def test_few_models_are_made_to_tell_whose_weights_are_in_a_file(
    classes: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def counted(name: str, **arguments: Any) -> nn.Module:
        names.append(name)
        return create(name, **arguments)

    monkeypatch.setattr(start, "create", counted)
    for model in SIZES:
        names.clear()
        path = str(file_of(model, tmp_path, classes))
        assert sources((path,), False, plan()) == {model: path}
        assert len(names) <= most


def test_whose_the_shared_part_is() -> None:
    both: dict[Any, str] = {"base": "pretrained", "motivated": "m.safetensors"}
    assert shared_from({}, None, "neutral") is None
    assert shared_from({"motivated": "pretrained"}, None, "own") == "motivated"
    assert shared_from({"base": "pretrained"}, None, "neutral") == "base"
    assert shared_from(both, "base", "own") == "base"
    with pytest.raises(SeekingError, match=r"both models start from weights.*m.safetensors.*say whose it is"):
        shared_from(both, None, "own")
    with pytest.raises(SeekingError, match=r"shared_from is base, but .* give shared_from motivated$"):
        shared_from({"motivated": "pretrained"}, "base", "own")
    with pytest.raises(SeekingError, match="extra is neutral, which would overwrite"):
        shared_from(both, "base", "neutral")


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "--pretrained --base resnet18 --motivated resnet34 --recipe paper",
            "say whose it is: --shared-from base or motivated",
        ),
        (
            "--start-from base motivated=FILE --base resnet18 --motivated resnet34 --recipe paper",
            "say whose it is: --shared-from",
        ),
        ("--start-from FILE missing", "missing: cannot be read"),
        ("--start-from FILE base --recipe paper", "say whose it is: --shared-from base or motivated"),
        ("--base resnet14 --motivated resnet8", "layer1: the base has 2 blocks, the motivated model 1; every stage"),
        ("--base resnet50 --motivated resnet34", "the motivated model has no module layer1.0.conv3"),
        ("--start-from base=FILE", "--shared-from is motivated, but only the base model"),
        ("--recipe best --extra neutral", "own weights; set --extra to own, or --shared-from to base"),
        ("--start-from base=FILE --pretrained", "name the one that starts from pretrained weights"),
        ("--start-from motivated=FILE --extra neutral --recipe paper", "--extra is neutral, which would overwrite"),
        ("--start-from base=FILE base=missing", "missing: cannot be read"),
        ("--start-from missing", "missing: cannot be read"),
        ("--start-from base --recipe paper", "there are no pretrained weights of resnet8"),
        ("--base local-dir:missing", "local-dir:missing: there is no missing/config.json"),
        (
            "--start-from base --base coatnet_0_224 --motivated coatnet_1_224 --recipe paper",
            "there are no pretrained weights of coatnet_0_224",
        ),
        ("--start-from pretrained", "pretrained: cannot be read"),
        ("--model-kwargs wdth=4", "model resnet8 rejects the arguments wdth=4: "),
        ("--model-kwargs width=abc", "model resnet8 rejects the arguments width='abc': width is 'abc'; it must be"),
        ("--motivated-kwargs width=0", "model resnet14 rejects the arguments width=0: width is 0; it must be"),
        ("--motivated vit_tiny_patch16_224 --motivated-kwargs dpth=1", "model vit_tiny_patch16_224 rejects the"),
        ("--task tabular --base mlp-4 --motivated mlp-8 --base-kwargs depth=-1", "depth is -1; it must be"),
        ("--best accurcy", "unknown metric in best 'accurcy'; did you mean accuracy"),
        ("--task tabular --base mlp-4 --motivated mlp-8 --loss mse --best accuracy", "known: loss, mae, rmse"),
    ],
)
def test_what_cannot_be_made_or_measured_is_found_before_data_are_read(
    command: str, given: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(file_of("base", tmp_path))
    options = [file if word == "FILE" else word.replace("=FILE", f"={file}") for word in given.split()]
    output = tmp_path / "run"
    assert main([command, "--data", str(tmp_path / "missing"), *options, "--output", str(output)]) == 2
    assert told in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("owner", ["base", "motivated"])
def test_a_run_starts_from_a_file_whatever_is_trained(owner: str, tmp_path: Path, digits: ImagesOfRun) -> None:
    path = file_of(owner, tmp_path, classes=7)
    state = load_file(path)
    config = dataclasses.replace(RESNETS, start_from=(str(path),))
    with pytest.warns(RunWarning, match=r"start anew: fc.weight is \[7, \d+\], here \[10, \d+\], fc.bias"):
        run = trainer(config, digits)
    assert run.pair
    with run.pair.motivated() as motivated:
        models = {"base": run.pair.base, "motivated": motivated}
        assert same(models[owner], state)
        shared = run.pair.map.extract(tensors(motivated))
        assert same(run.pair.base, shared, but="running")
        for role in ("base", "motivated"):  # Alone it starts with the same weights.
            with pytest.warns(RunWarning, match="start anew"):
                alone = trainer(config, digits, role)  # type: ignore[arg-type]
            assert same(alone.learners[role].module, tensors(models[role]), but="running")


@settings(max_examples=10)
@given(classes=st.integers(1, 12), width=st.integers(22, 26))
def test_a_head_that_starts_anew_is_told_by_its_shapes(classes: int, width: int) -> None:
    """For other classes, or as wide as that of a wider model."""
    with tempfile.TemporaryDirectory() as folder:
        path = file_of("motivated", Path(folder), classes)
        save_file({**load_file(path), "fc.weight": torch.zeros(classes, width)}, path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            initial_models(plan(), 0, {"motivated": str(path)})
    differ = [f"fc.weight is [{classes}, {width}], here [10, 24]"] if (classes, width) != (10, 24) else []
    differ += [f"fc.bias is [{classes}], here [10]"] if classes != 10 else []
    told = f"{path}: of other shapes than the motivated model's, so these start anew: {', '.join(differ)}"
    assert [str(warning.message) for warning in caught] == ([told] if differ else [])


@pytest.mark.slow
def test_an_embedding_that_starts_anew_with_the_head_is_told_by_its_shapes(tmp_path: Path) -> None:
    save_weights(create("gpt2-2x32", num_classes=300, sequence_length=16), tmp_path / "weights")
    names = RunConfig(task="text", base="gpt2-1x32", motivated="gpt2-2x32")
    words = arguments(names, {"num_classes": 256, "sequence_length": 16})
    with pytest.warns(RunWarning, match=r"start anew: transformer.wte.weight is \[300, 32\], here \[256, 32\]$"):
        initial_models(words, 0, {"motivated": str(tmp_path / "weights")})


@settings(max_examples=10)
@given(data=st.data(), owner=st.sampled_from(tuple(SIZES)), number=st.sampled_from((math.nan, math.inf, -math.inf)))
def test_weights_that_are_not_finite_are_told_by_file_and_tensor(data: Any, owner: str, number: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(owner, Path(folder))
        state = load_file(path)
        name = data.draw(st.sampled_from(sorted(name for name in state if state[name].is_floating_point())))
        state[name].view(-1)[data.draw(st.integers(0, state[name].numel() - 1))] = number
        save_file(state, path)
        holds = f"{path}: {name} holds {'NaN' if math.isnan(number) else 'Inf'}, from which nothing can start"
        with pytest.raises(SeekingError, match=re.escape(holds)):
            initial_models(plan(), 0, {owner: str(path)})  # type: ignore[dict-item]


def test_pretrained_weights_of_timm(tmp_path: Path) -> None:
    """As from the hub: made for 1000 classes."""
    path = tmp_path / "pretrained.safetensors"
    pretrained = create("vit_small_patch16_224", num_classes=1000, **SIZE)
    save_weights(pretrained, path)
    config = dataclasses.replace(
        VITS,
        pretrained=True,
        start_from=("motivated",),
        motivated_kwargs={"pretrained_cfg_overlay": {"file": str(path), "custom_load": False}},
    )
    plan = arguments(config, {"num_classes": 10})
    with pytest.warns(RunWarning, match="the head starts anew: head.weight, head.bias"):
        models = initial_models(plan, 0, sources(config.start_from, True, plan))
    assert same(models["motivated"], pretrained.state_dict(), but="head")
    with warnings.catch_warnings(action="error", category=RunWarning):
        initial_models(arguments(config, {"num_classes": 1000}), 0, {"motivated": "pretrained"})
    seeking.Pair(models["base"], models["motivated"], shared_from="motivated")
    assert same(models["motivated"], pretrained.state_dict(), but="head")
    assert torch.equal(models["base"].get_parameter("cls_token"), pretrained.get_parameter("cls_token")[..., :192])


def test_pretrained_weights_that_there_are_not() -> None:
    with pytest.raises(SeekingError, match="no pretrained weights of resnet8"):
        create("resnet8", num_classes=10, pretrained=True)
    with pytest.raises(SeekingError, match="the pretrained weights of test_vit cannot be loaded"):
        create("test_vit", num_classes=10, pretrained=True, pretrained_cfg_overlay={"file": "missing.safetensors"})


def test_a_model_in_a_folder(tmp_path: Path) -> None:
    """As it is on the hub, under ``hf-hub:OWNER/NAME``."""
    model = create("test_vit", num_classes=10, img_size=160)
    save_weights(model, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        '{"architecture": "test_vit", "num_classes": 10, "pretrained_cfg": {"num_classes": 10, "classifier": "head", '
        '"input_size": [3, 160, 160], "first_conv": "patch_embed.proj"}, "model_args": {"img_size": 160}}'
    )
    loaded = create(f"local-dir:{tmp_path}", num_classes=10, pretrained=True)
    assert same(loaded, model.state_dict(), but="nothing")


@pytest.mark.slow
def test_a_resumed_run_needs_the_weights_no_more(tmp_path: Path, digits: ImagesOfRun) -> None:
    config = dataclasses.replace(RESNETS, start_from=(str(file_of("motivated", tmp_path)),))
    trainer(config, digits, output=RunFolder(tmp_path / "run")).fit()
    (tmp_path / "motivated-10.safetensors").unlink()
    longer = dataclasses.replace(RESNETS, epochs=2)
    shutil.copytree(tmp_path / "run", tmp_path / "killed")
    trainer(longer, digits, output=RunFolder(tmp_path / "run", resume=True)).fit()
    for file in (tmp_path / "killed").rglob("*"):  # As if it had been killed before its first checkpoint.
        if file.is_file() and file.name not in ("config.json", "manifest.json", "map.json", "metrics.jsonl"):
            file.unlink()
    shutil.rmtree(tmp_path / "killed" / "checkpoints")
    with pytest.raises(SeekingError, match="has no checkpoint yet; give start_from and pretrained again"):
        trainer(longer, digits, output=RunFolder(tmp_path / "killed", resume=True))


@pytest.mark.slow
@settings(max_examples=10)
@given(
    name=st.sampled_from(("resnet8", "test_efficientnet", "test_vit", "mlp-8", "gpt2-1x32")),
    classes=st.integers(1, 300),
    other=st.integers(1, 40),
)
def test_arguments_are_read_from_weights(name: str, classes: int, other: int) -> None:
    make = functools.partial(create, name)
    usual = arguments_for(name, 10)
    arguments = {argument: classes if argument == "num_classes" else other for argument in usual}
    shapes = shapes_of(make(**arguments))
    assert arguments_of_weights(shapes, make, usual, "file") == arguments
    for argument, value in arguments.items():
        more = shapes_of(make(**{**arguments, argument: value + 1}))
        if len(heads := growing(shapes, more, value)) > 1:
            odd = shapes | {key: more[key] for key in list(heads)[:1]}
            with pytest.raises(SeekingError, match=rf"file: {argument} is {value} by .*; give {argument}"):
                arguments_of_weights(odd, make, usual, "file")


@pytest.mark.slow
def test_extract_and_embed_take_the_classes_of_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    widths = ["--base-kwargs", "width=4", "--motivated-kwargs", "width=6"]
    for command, source, classes in (("extract", "motivated", 7), ("embed", "base", 12)):
        weights, output = file_of(source, tmp_path, classes), tmp_path / f"{command}.safetensors"
        given = [command, "resnet8", "resnet14", *widths, "--weights", str(weights), "--output", str(output)]
        assert main(given) == 0, capsys.readouterr().err
        assert load_file(output)["fc.bias"].shape == (classes,)
        assert load_file(output)["conv1.weight"].shape[1] == 1
        given = [*given, "--overwrite", "--in-chans", "3"]
        assert main(given) == 2
        assert "[6, 1, 3, 3]" in capsys.readouterr().err or source == "base"


def test_models_without_classes_are_embedded_and_extracted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    depths = ["--base-kwargs", "depth=1", "--motivated-kwargs", "depth=2", "--num-classes", "0"]
    for command, depth in (("extract", 2), ("embed", 1)):
        weights, output = tmp_path / f"{depth}.safetensors", tmp_path / f"{command}.safetensors"
        save_weights(create("test_vit", num_classes=0, depth=depth), weights)
        given = [command, "test_vit", "test_vit", *depths, "--weights", str(weights), "--output", str(output)]
        assert main(given) == 0, capsys.readouterr().err
        assert not [name for name in load_file(output) if name.startswith("head")]


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["base", "motivated"])
def test_fine_tuning_begins_with_what_was_learnt(owner: str, tmp_path: Path) -> None:
    """Trained on the digits before: as good at first as it was, and still so after it has been fine-tuned."""
    digits = ImagesOfRun(load(RunConfig(max_train_samples=640)))
    config = dataclasses.replace(RESNETS, max_train_samples=640, epochs=2, lr=0.1)
    result = trainer(config, digits, owner, output=RunFolder(tmp_path / "first")).fit()  # type: ignore[arg-type]
    learnt = result.metrics[owner]["accuracy"]
    path = tmp_path / "first" / f"{owner}.last.safetensors"
    tuned = dataclasses.replace(config, start_from=(f"{owner}={path}",), lr=1e-6, epochs=1)
    begun = trainer(tuned, digits).fit()
    assert begun.metrics[owner]["accuracy"] == pytest.approx(learnt, abs=0.02)
    good = trainer(dataclasses.replace(tuned, lr=0.01, condition="always"), digits).fit()
    assert good.metrics[owner]["accuracy"] > learnt - 0.1
