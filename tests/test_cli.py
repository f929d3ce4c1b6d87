import contextlib
import errno
import io
import json
import math
import re
import resource
import shutil
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from runs import image_folder
from tiny import Failing, contents

from seeking import WeightsMap
from seeking.checkpointing.weights import save_weights
from seeking.cli import COMMANDS, main
from seeking.commands import Train
from seeking.escapes import printable
from seeking.files import read_yaml_text
from seeking.models import create
from seeking.option_parsing import parse_options, plain_switches
from seeking.options import RECIPES
from seeking.report.output import PrintableConsole, ignore_output_errors

QUICK = ["--epochs", "1", "--max-train-samples", "64", "--base-kwargs", "width=4", "--motivated-kwargs", "width=6"]


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], code: int = 2) -> None:
    """One clear error, no traceback, nothing written."""
    before = sorted(Path.cwd().rglob("*"))
    try:
        given: object = main(arguments)
    except SystemExit as stop:  # The parser of flags leaves by itself.
        given = stop.code
    assert given == code
    out, err = capsys.readouterr()
    assert re.search(message, " ".join((out + err).split())), out + err
    assert "Traceback" not in out + err
    assert sorted(Path.cwd().rglob("*")) == before


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_train_with_flags_over_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    file = {
        "epochs": 7,
        "lr": 0.05,
        "condition": "every:2",
        "verify": False,
        "mean": [0.5],
        "std": [0.25],
        "base_kwargs": {"width": 4},
        "motivated_kwargs": {"width": 6},
    }
    Path("run.yaml").write_text(yaml.safe_dump(file))
    assert main(["train", "--config", "run.yaml", "--epochs", "1", "--output", "out"]) == 0
    config = json.loads(Path("out/config.json").read_text())
    assert (config["epochs"], config["lr"], config["condition"], config["verify"]) == (1, 0.05, "every:2", False)
    assert config["base_kwargs"] == {"width": 4}
    written = {path.name for path in Path("out").iterdir() if path.name != ".lock"}
    files = {"config.json", "map.json", "manifest.json"}
    weights = {f"{m}.{w}.safetensors" for m in ("base", "motivated") for w in ("last", "best")}
    assert written == {*files, "metrics.jsonl", "summary.json", "curves.png", "checkpoints"} | weights
    assert json.loads(Path("out/summary.json").read_text())["cost"]["motivated_share"] == 0.5
    out = capsys.readouterr().out
    assert "50.0% of the batches were motivated" in " ".join(out.split())


@pytest.mark.slow
def test_compare_shows_the_pair_beside_its_models_alone(capsys: pytest.CaptureFixture[str], curves: None) -> None:
    data = str(image_folder(Path("images"), per_class=8))
    data_and_steps = ["--data", data, *QUICK, "--batch-size", "4", "--condition", "decrease:2"]
    arguments = ["compare", *data_and_steps, "--seeds", "2", "--output", "out"]
    assert main(arguments) == 0
    summary = json.loads(Path("out/comparison.json").read_text())
    assert summary["seeds"] == 2
    for model in ("base", "motivated"):
        measured = summary["models"][model]
        gains = [a - b for a, b in zip(measured["together"]["values"], measured["alone"]["values"], strict=True)]
        assert measured["gain"]["values"] == gains
    assert summary["arms"]["pair"]["flops"]["mean"] < sum(
        summary["arms"][m]["flops"]["mean"] for m in ("base", "motivated")
    )
    assert Path("out/comparison.png").stat().st_size > 10_000
    assert "| motivated alone |" in Path("out/comparison.md").read_text()
    first = [
        json.loads(Path(f"out/{arm}-seed0/metrics.jsonl").read_text().splitlines()[1])["loss"]
        for arm in ("pair", "base")
    ]
    assert first[0] == first[1], "the same initial weights and data in every arm"
    out = " ".join(capsys.readouterr().out.split())
    assert "in the pair" in out
    for fewer in (["--seeds", "1"], ["--seed", "1", "--seeds", "1"], ["--seed", "7"]):
        refused(["compare", "--resume", "--output", "out", *fewer], "is of another one", capsys)
    assert json.loads(Path("out/comparison.json").read_text()) == summary
    shutil.rmtree("out/motivated-seed1")
    Path("out/comparison.json").unlink()
    for way in ("--resume", "--overwrite"):
        refused(["train", way, "--output", "out"], "a comparison is resumed and replaced by seeking compare", capsys)
    with Failing(Path.cwd() / "out/.comparison", errno.ENOSPC):
        assert main(["compare", "--resume", "--output", str(Path.cwd() / "out")]) == 1
    captured = capsys.readouterr()
    assert "the comparison cannot be written (No space left on device)" in " ".join(captured.err.split())
    assert "in the pair" in captured.out, "what was trained for is shown all the same"
    assert main(["compare", "--resume", "--output", "out"]) == 0
    again = json.loads(Path("out/comparison.json").read_text())
    assert again["models"] == summary["models"]
    assert again["arms"]["pair"]["flops"] == summary["arms"]["pair"]["flops"]
    assert main([*arguments, "--overwrite", "--epochs", "3", "--on-nonfinite", "rollback", "--seeds", "1"]) == 0
    # Resumed, to be evaluated at other epochs than the runs that are over, with one more seed.
    shutil.rmtree("out/pair-seed0")
    Path("out/comparison.png").unlink()
    assert main(["compare", "--resume", "--output", "out", "--eval-every", "2", "--seeds", "2"]) == 0
    assert json.loads(Path("out/comparison.json").read_text())["seeds"] == 2
    assert Path("out/comparison.png").stat().st_size > 10_000
    refused(["compare", "--resume", "--output", "out/pair-seed0"], "holds a single run", capsys)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean train"),
        (["train", "--epocs", "3"], "--epocs"),
        (["train", "--epochs", "three"], "--epochs"),
        (["train", "--learning-rate", "0.1"], "unknown option --learning-rate; did you mean --lr?"),
        (["train", "--num_train_epochs=3"], "unknown option --num_train_epochs; did you mean --epochs?"),
        (["train", "--base", "resnet9"], "unknown model 'resnet9'; did you mean"),
        (["train", "--task", "text", "--base", "gpt2-0x32"], "unknown model 'gpt2-0x32'; known: gpt2-LAYERSxWIDTH"),
        (["train", "--data", "digit"], "unknown data set 'digit'; did you mean digits"),
        (["train", "--data", "./nowhere"], "no such folder"),
        (["train", "--condition", "decrese:2"], r"did you mean decrease\? decrese:2 \^"),
        (["train", "--optimizer", "adamv"], "unknown optimizer 'adamv'; did you mean"),
        (["train", "--base", "resnet14", "--motivated", "resnet8"], "the base has 2 blocks, the motivated model 1"),
        (["train", "--motivated-kwargs", "num_classes=7"], "different numbers of classes: the base has 10, .* 7"),
        (["train", "--batch-size", "5000"], "1438 training images are fewer than one batch of 5000"),
        (["train", "--batch-size", "0"], "--batch-size is 0"),
        (["train", "--config", "nothing.yaml"], "nothing.yaml: cannot be read"),
        (["train", "--recipe", "Best"], "unknown recipe 'Best'; did you mean best"),
        (["train", "--recipe", ""], "unknown recipe ''; known: base-first, best, paper"),
        (["train", "--recipe", "./nothing.json"], "nothing.json: cannot be read"),
        (["train", "--recipe", "."], "a folder, not a file; name a file in it"),
        (["train", "--recipe", "best", "--recipe", "paper"], "--recipe is given 2 times .best, paper.; join them"),
        (["reproduce", "nothing"], "unknown recipe 'nothing'; known: ablation"),
        (
            ["train", "--base", "vit_tiny_patch16_224", "--motivated", "vit_small_patch16_224"],
            r"does not run on the batch: AssertionError: Input height \(8\) doesn't match model \(224\)\.$",
        ),
        (["map", "resnet34", "resnet50"], "BasicBlock.*Bottleneck"),
        (["map", "mlp-4", "resnet8"], "mlp-4 is a model of task tabular, resnet8 one of task images; give two of one"),
        (["train", "--momentum", "0", "--data", "./nowhere"], "give optimizer momentum, which is SGD without Nesterov"),
        (["verify", "resnet8"], "MOTIVATED Name of the larger model"),
        (["compare", "--seeds", "0"], "--seeds is 0"),
        (["compare", "--base", "resnet9"], "unknown model 'resnet9'"),
        (["compare", "--batch-size", "5000"], "are fewer than one batch of 5000"),
        (["train", "--resume=maybe", "--output", "out"], "--resume is 'maybe'; it is a switch"),
        (["train", "--crop-padding", "-1"], "--crop-padding is -1"),
        (["train", "--image-size", "-3"], "--image-size is -3"),
        (["verify", "resnet8", "resnet14", "--image-size", "0"], "--image-size is 0"),
        (["verify", "mlp-4", "mlp-8", "--image-size", "32"], "--image-size is 32, but mlp-4 takes no images"),
        (["verify", "resnet8", "resnet14", "--tolerance", "nan"], "--tolerance is nan"),
        (["verify", "resnet8", "resnet14", "--in-chans", "0"], "--in-chans is 0"),
        (["map", "resnet8", "resnet14", "--num-classes", "-1"], "--num-classes is -1"),
        (["train", "--output", "long" * 100], "cannot be used as an output folder"),
        (["train", "--finish=tied", "--optimizer=adafactor", "--optimizer-state=shared"], "-state to separate"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(arguments, message, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: [", "not YAML"),
        ("- 3", "expected a mapping, found list"),
        ("epoch: 3", "unknown option in run.yaml 'epoch'; did you mean epochs"),
        ("weight-decay: 0\nper_device_train_batch_size: 3", "run.yaml 'per_device_.*'; did you mean batch_size"),
        ("verify: 3", "verify must be true or false, not 3"),
        ("epochs: many", "--epochs"),
        ("data: null", "run.yaml: data is null; give a value, or leave it out"),
        ('output: "a\\0b"', "run.yaml: output is .*a value cannot hold a null character"),
        ("seed: 9223372036854775808", "--seed is 9223372036854775808; it must be below"),
        ("image_size: 100000000", "--image-size is 100000000; it must be 16384 or less"),
        ("image_size: 16384", "digits of 16384.16384 pixels take .* GB of memory.*; give a smaller --image-size"),
        ("start_from: ['base=']", "--start-from is 'base=', which names no file"),
    ],
)
def test_bad_files_are_refused(content: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(content)
    refused(["train", "--config", "run.yaml"], message, capsys)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine", "epochs: 1", "mine is a file, .*; give its path as ./mine"),
        ("./mine", "epochs: many", "--epochs"),
        ("mine.json", "config: run.yaml", "a recipe cannot start from another recipe or file"),
        ("mine.yaml", "recipe: best", "a recipe cannot start from another recipe or file"),
    ],
)
def test_any_file_is_a_recipe_by_its_path(
    name: str, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_text(content)
    refused(["train", "--recipe", name], message, capsys)


def test_a_folder_with_another_run_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    told = (
        "out holds another run or files of yours; name .*, set --resume to continue .*, or set --overwrite to replace"
    )
    refused(["train", "--output", "out"], told, capsys)
    refused(["train", "--output", "out", "--overwrite"], "not the folder of a run", capsys)
    refused(["compare", "--output", "out"], "out holds another run or files of yours", capsys)


TABLE = ["--task", "tabular", "--data", "wine", "--base", "mlp-4", "--motivated", "mlp-8", "--device", "cpu"]


@pytest.mark.parametrize("command", ["train", pytest.param("compare", marks=pytest.mark.slow)])
def test_a_resumption_that_is_refused_changes_nothing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    begin = [command, *TABLE, "--epochs", "1", "--output", "out", *(["--seeds", "1"] if command == "compare" else [])]
    assert main(begin) == 0
    before = contents(Path("out"))
    for refused_option in (["--lr", "0.3"], ["--data", "breast_cancer"], ["--precision", "bf16"]):
        assert main([command, "--resume", "--output", "out", *refused_option]) == 2
        assert contents(Path("out")) == before
    capsys.readouterr()
    assert main([command, "--resume", "--output", "out"]) == 0


@pytest.mark.slow
def test_a_run_of_a_comparison_is_resumed_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *TABLE, "--epochs", "1", "--seeds", "1", "--output", "out"]) == 0
    assert main(["train", "--resume", "--epochs", "2", "--output", "out/pair-seed0"]) == 0
    assert "mlp-4 in mlp-8 on wine" in capsys.readouterr().out


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
def _weights() -> None:
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


def test_a_comparison_that_is_refused_leaves_the_old_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *QUICK, "--output", "out"]) == 0
    capsys.readouterr()
    refused(["compare", "--base", "resnet9", "--output", "out", "--overwrite"], "unknown model", capsys)
    assert Path("out/base.last.safetensors").exists()


@pytest.mark.slow
def test_words_that_older_yaml_takes_for_booleans_and_a_runs_own_record(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text("on: next\nprecision: no\nmodel_kwargs: {width: 4}\nmax_train_samples: 64\nepochs: 1\n")
    assert main(["train", "--config", "run.yaml", "--output", "out[/b]"]) == 0
    config = json.loads(Path("out[/b]/config.json").read_text())
    assert (config["on"], config["precision"], config["model_kwargs"]) == ("next", "no", {"width": 4})
    assert main(["train", "--config", "out[/b]/config.json", "--output", "again"]) == 0
    again = json.loads(Path("again/config.json").read_text())
    assert {k: v for k, v in again.items() if config[k] != v}.keys() == {"output", "config"}
    Path("run.yaml").write_text("model_kwargs: {width: null}\n")
    refused(["train", "--config", "run.yaml"], "width=None", capsys)


@pytest.mark.parametrize("flag", ["--config", "--recipe"])
def test_the_record_of_a_run_does_not_lead_to_its_folder(flag: str) -> None:
    assert main(["train", *QUICK, "--output", "out", "--overwrite"]) == 0
    weights = Path("out/base.last.safetensors").read_bytes()
    assert main(["train", flag, "out/config.json", "--lr", "0.02", "--output", "again"]) == 0
    assert main(["train", flag, "out/config.json", "--lr", "0.02"]) == 0
    assert Path("out/base.last.safetensors").read_bytes() == weights
    assert len([*Path("runs").iterdir()]) == 1


def test_a_loss_that_is_not_finite_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", *QUICK, "--optimizer", "momentum", "--lr", "1e30", "--output", "out"]
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert re.search(
        r"loss became (nan|inf|-inf) at step \d+ .*the newest checkpoint is \S*out/checkpoints/step-00000000",
        " ".join(err.split()),
    )


def test_the_list_of_commands_has_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  seeking ")]
    assert len(lines) == len(COMMANDS)
    assert not [line for line in lines if not line.endswith(".")]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        assert main([*([command] if command else []), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "seeking" in shown
    if command in ("train", "compare"):
        for flag in ("--base", "--motivated", "--data", "--condition", "--epochs", "--batch-size", "--lr", "--seed"):
            assert flag in shown
        for recipe in RECIPES.glob("*.yaml"):
            assert recipe.stem in shown


SCALARS = {
    "1e-1": 0.1,
    "-1E+3": -1000.0,
    "1.": 1.0,
    ".5": 0.5,
    "1_000": 1000,
    "0o10": 8,
    "0x1F": 31,
    "8:12": "8:12",
    "2020-01-01": "2020-01-01",
    "on": "on",
    "true": True,
    "~": None,
    "-.inf": -math.inf,
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_those_of_yaml_1_2(text: str) -> None:
    value = read_yaml_text(f"[{text}]")[0]
    assert value == SCALARS[text] and type(value) is type(SCALARS[text])


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()))
def test_numbers_are_read_as_they_are_written(value: object) -> None:
    text = json.dumps(value).replace("Infinity", ".inf")
    assert read_yaml_text(text) == value


@pytest.mark.parametrize("text", ["010", "-08", "0_1", "{a: 1, a: 2}", "[{b: {c: 1, c: 1}}]", "{1: a, 1: b}"])
def test_what_is_ambiguous_in_yaml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"given twice|octal or a decimal"):
        read_yaml_text(text)


@pytest.mark.parametrize(
    ("file", "flags", "message"),
    [
        ("lr: 0.1\nlr: 0.01", [], "run.yaml: not YAML: 'lr' is given twice in .*line 2"),
        ("batch-size: 4\nbatch_size: 8", [], "run.yaml: batch_size is given twice"),
        ("epochs: 010", [], "run.yaml: not YAML: 010 can be read as an octal or a decimal number"),
        ("lr: 0.1", ["--model-kwargs", "width=4", "width=6"], "given twice: width"),
        ('lr: "\\e[31mred"', [], r"\\x1b\[31mred|red"),
    ],
)
def test_ambiguous_options_are_refused(
    file: str, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.yaml").write_text(file)
    refused(["train", "--config", "run.yaml", *flags], message, capsys)


@given(st.text(st.characters(max_codepoint=0x2100)))
def test_printed_text_holds_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in shown)
    console = PrintableConsole(file=io.StringIO(), width=10_000, markup=False)
    console.print(text, highlight=False, emoji=False)
    assert "\x1b" not in console.file.getvalue()
    assert printable(shown) == shown


def test_streams_that_are_closed_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sys.stdout", "sys.stderr"):
        monkeypatch.setattr(name, None)
    assert main(["map", "resnet8", "resnet14"]) == 0
    assert main(["nothing"]) == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1", "utf-8"])
def test_output_goes_through_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(content, encoding=encoding))
    with ignore_output_errors():
        print("1×8×8, 0.5 ± 0.1 … ünï\udcff", flush=True)
    assert content.getvalue().decode(encoding)
    assert b"\\udcff" in content.getvalue()


def test_names_from_files_do_not_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x9b31m"
    folder = Path(f"run{evil}")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({evil: evil, "lr": evil}))
    assert main(["map", "resnet8", "resnet14", "--save", "map.json"]) == 0
    content = json.loads(Path("map.json").read_text())
    content["entries"][evil] = content["entries"].pop(next(iter(content["entries"])))
    Path(f"{evil}.json").write_text(json.dumps(content))
    for arguments in (
        ["show", str(folder)],
        ["show", "."],
        ["train", "--resume", "--output", str(folder)],
        ["train", "--data", f"./{evil}"],
        ["train", "--lr", evil],
        ["train", f"--{evil}", "1"],
        [evil],
        ["verify", "resnet8", "resnet14", "--map", f"{evil}.json"],
        ["extract", "resnet8", "resnet14", "--weights", f"{evil}.json", "--output", "base.safetensors"],
    ):
        with contextlib.suppress(SystemExit):
            main(arguments)
        out, err = capsys.readouterr()
        assert out + err
        assert not set("\x1b\x07\x9b") & set(out + err), arguments


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


@pytest.mark.parametrize("name", ["never-cached-images", "nobody/never-cached-images"])
def test_a_hub_that_cannot_be_reached_is_not_an_unknown_data_set(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["train", "--data", name], f"data set {name}: no such folder in .*, and the hub cannot be reached", capsys)


@pytest.mark.parametrize(
    ("flags", "value"),
    [(["--in-memory", "False"], False), (["--in_memory", "true"], True), (["--no-in-memory"], False), ([], None)],
)
def test_a_switch_may_have_a_value(flags: list[str], value: bool | None) -> None:
    assert parse_options(Train, plain_switches([*flags, "--overwrite"], Train), "seeking train").in_memory is value


def test_a_switch_has_at_most_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--flip", "true", "true"])
    assert "true" in capsys.readouterr().err
