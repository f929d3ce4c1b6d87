"""``seeking train`` and ``seeking compare``: what they write, resume and leave alone."""

import errno
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from command_line import TABLE, refused
from runs import image_folder
from tiny import Failing, contents

from seeking.cli import main

pytestmark = pytest.mark.usefixtures("_elsewhere")

QUICK = ["--epochs", "1", "--max-train-samples", "64", "--base-kwargs", "width=4", "--motivated-kwargs", "width=6"]


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


def test_a_folder_with_another_run_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    told = (
        "out holds another run or files of yours; name .*, set --resume to continue .*, or set --overwrite to replace"
    )
    refused(["train", "--output", "out"], told, capsys)
    refused(["train", "--output", "out", "--overwrite"], "not the folder of a run", capsys)
    refused(["compare", "--output", "out"], "out holds another run or files of yours", capsys)


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
