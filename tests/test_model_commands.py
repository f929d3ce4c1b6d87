"""``seeking map``, ``verify``, ``embed`` and ``extract``: maps and weights of models by name."""

import json
import re
import resource
from pathlib import Path

import pytest
from command_line import TABLE, refused
from tiny import contents

from seeking import WeightsMap
from seeking.checkpointing.weights import save_weights
from seeking.cli import main
from seeking.models import create

pytestmark = pytest.mark.usefixtures("_elsewhere")


def test_map_and_verify(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "resnet8", "resnet14", "--save", "map.json"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"-\s+layer1\.1\s+4,672\s+0\s+4,672\s+0\.0", out)
    assert main(["map", "resnet8", "resnet14", "--details"]) == 0
    assert "layer3.0.bn2.running_var" in capsys.readouterr().out
    assert main(["verify", "resnet8", "resnet14", "--map", "map.json"]) == 0
    assert "exact" in capsys.readouterr().out
    content = json.loads(Path("map.json").read_text())
    rows = content["entries"]
    rows["bn1.bias"]["target"], rows["bn1.weight"]["target"] = "bn1.weight", "bn1.bias"
    Path("map.json").write_text(json.dumps(content))
    WeightsMap.load("map.json")
    assert main(["verify", "resnet8", "resnet14", "--map", "map.json"]) == 1
    assert "bn1 in the base" in capsys.readouterr().out
    assert main(["verify", "resnet8", "resnet20", "--map", "map.json"]) == 1
    assert "the map belongs to other models" in capsys.readouterr().out
    assert main(["verify", "resnet14", "resnet8"]) == 1


def test_a_map_of_models_with_other_channels_or_classes_tells_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "resnet8", "resnet14", "--in-chans", "1", "--num-classes", "7", "--save", "map.json"]) == 0
    verify = ["verify", "resnet8", "resnet14", "--map", "map.json"]
    refused(verify, r"--in-chans is 3, .* map.json is .* with 1; give --in-chans 1|--num-classes is 10, .* 7", capsys)
    refused([*verify, "--in-chans", "1"], r"--num-classes is 10, .* with 7; give --num-classes 7", capsys)
    assert main([*verify, "--in-chans", "1", "--num-classes", "7"]) == 0


def test_keyword_arguments_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    vits = ["vit_tiny_patch16_224", "vit_small_patch16_224"]
    assert main(["verify", *vits, "--model-kwargs", "img_size=16", "patch_size=8", "depth=2"]) == 0
    assert "input [2, 3, 16, 16]" in capsys.readouterr().out
    refused(["verify", *vits, "--model-kwargs", "imgsize=16"], "rejects the arguments .*imgsize=16", capsys)
    refused(["verify", *vits, "--model-kwargs", "img_size"], "KEY=VALUE", capsys)
    for value in ("(16, 16)", "None"):  # Python, which would be text in YAML.
        refused(["verify", *vits, "--model-kwargs", f"img_size={value}"], r"img_size=.* is Python; .*\[1, 2\]", capsys)


def test_overrides_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("known.yaml").write_text("layer1.0: {target: layer1.1}\n")
    assert main(["map", "resnet8", "resnet14", "--details", "--overrides", "known.yaml"]) == 0
    assert re.search(r"layer1\.0\.conv1\.weight\s+layer1\.1\.conv1\.weight", capsys.readouterr().out)
    Path("known.yaml").write_text("layer1.0: {to: layer1.1}\n")
    refused(["map", "resnet8", "resnet14", "--overrides", "known.yaml"], "must have target, index or both", capsys)
    refused(["map", "resnet8", "resnet14", "--overrides", "nothing.yaml"], "nothing.yaml: cannot be read", capsys)


def test_files_of_a_run_are_not_written_over_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TABLE, "--epochs", "1", "--output", "out"]) == 0
    models, before = ["mlp-4", "mlp-8", "--in-chans", "13", "--num-classes", "3"], contents(Path("out"))
    told = "is a file of the run in out; name another file"
    assert main(["map", *models, "--save", "out/map.json"]) == 2
    assert told in capsys.readouterr().err
    for command, source in (("embed", "base"), ("extract", "motivated")):
        weights = ["--weights", f"out/{source}.last.safetensors", "--output", "out/base.best.safetensors"]
        refused([command, *models, *weights, "--overwrite"], told, capsys)
    assert contents(Path("out")) == before


MODELS_TO_FILE = {
    "map": ["map", "mlp-4", "mlp-8", "--save"],
    "embed": ["embed", "mlp-4", "mlp-8", "--weights", "base.safetensors", "--output"],
    "extract": ["extract", "mlp-4", "mlp-8", "--weights", "motivated.safetensors", "--output"],
}


@pytest.fixture
def _weights(_elsewhere: None) -> None:
    for name, width in (("base", 4), ("motivated", 8)):
        save_weights(create(f"mlp-{width}", num_classes=3, in_features=5), f"{name}.safetensors")


@pytest.mark.usefixtures("_weights")
@pytest.mark.parametrize(("command", "other"), [("embed", "motivated"), ("extract", "base")])
def test_weights_of_the_model_that_is_to_get_them_are_refused(
    command: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = (
        f"weights of the {other} model .*, but seeking {command} takes those of the .* model; seeking .* the other way"
    )
    refused([command, "mlp-4", "mlp-8", "--weights", f"{other}.safetensors", "--output", "out"], told, capsys)
    assert not Path("out").exists()


@pytest.mark.usefixtures("_weights")
@pytest.mark.parametrize("command", MODELS_TO_FILE)
def test_a_file_is_written_into_new_folders_or_refused_before_the_work(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*MODELS_TO_FILE[command], "new/folder/file"]) == 0
    assert [path.name for path in Path("new/folder").iterdir()] == ["file"]
    monkeypatch.setattr("seeking.model_commands.models", lambda *given: pytest.fail("the work has begun"))
    refused([*MODELS_TO_FILE[command], "base.safetensors/file"], "base.safetensors is no folder; name another", capsys)
    refused([*MODELS_TO_FILE[command], "base.safetensors/new/file"], "base.safetensors is no folder", capsys)
    refused([*MODELS_TO_FILE[command], "new"], "new: a folder, not a file; name a file in it", capsys)
    monkeypatch.setattr("os.access", lambda *given: False)  # The superuser may write everywhere.
    refused([*MODELS_TO_FILE[command], "new/other"], "new/other: cannot be written, as nothing may be .* new;", capsys)


@pytest.mark.usefixtures("_weights")
@pytest.mark.parametrize("command", MODELS_TO_FILE)
def test_a_full_disk_is_told_by_the_name_that_was_given(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # Nearly as good.
    try:
        assert main([*MODELS_TO_FILE[command], "file"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = capsys.readouterr().err
    assert re.fullmatch(r"seeking: file: cannot be written \(.*File too large.*\)\n", told)
    assert ".writing" not in told and not Path("file").exists() and not [*Path.cwd().glob(".*")]


@pytest.mark.parametrize("content", [b'{"a": 1}', b"", b"<html>", b"\x80\x04K\x01.", b"PK\x03\x04"])
@pytest.mark.parametrize("name", ["x.json", "x.pt", "x.safetensors"])
def test_files_that_are_no_weights_are_refused_in_one_line(
    name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_bytes(content)
    refused(
        ["extract", "resnet8", "resnet14", "--weights", name, "--output", "out.safetensors"], f"{name}: not ", capsys
    )
    main(["extract", "resnet8", "resnet14", "--weights", name, "--output", "out.safetensors"])
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "weights_only" not in err and len(err) < 500
