"""The folder that a command writes to: chosen and tried before the data are read."""

import contextlib
import time
from pathlib import Path

import pytest
from PIL import Image
from tiny import contents

from seeking.cli import main
from seeking.commands import Train
from seeking.run_commands import output_folder
from seeking.training import RunFolder


def test_runs_that_begin_within_a_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with contextlib.ExitStack() as running:
        outputs = [running.enter_context(output_folder(Train(), "pair"))[0] for _ in range(4)]  # None has written yet.
        (outputs[1] / "kept").touch()
    assert len({*outputs}) == 4
    assert [output for output in outputs if output.exists()] == [outputs[1]]
    assert [path.name for path in Path("runs").iterdir()] == [outputs[1].name]


def test_a_run_that_is_refused_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "./nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("command", ["train", "compare"])
def test_an_output_that_cannot_be_written_is_told_before_the_data_are_read(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for output, cause in (("link", "a link that leads nowhere"), ("link/run", "a link")):
        assert main([command, "--data", "./nowhere", "--output", str(tmp_path / output)]) == 2
        told = capsys.readouterr().err
        assert f"as {tmp_path / output.split('/')[0]} is {cause}" in told and "nowhere:" not in told


@pytest.mark.parametrize("name", ["x.pt", "x.PTH", "pytorch_model.bin", "last.ckpt"])
@pytest.mark.parametrize("command", ["extract", "embed"])
def test_weights_are_not_called_as_what_torch_save_writes(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    assert main([command, "mlp-4", "mlp-8", "--weights", "nowhere", "--output", str(file)]) == 2
    assert f"name it {file.with_suffix('.safetensors')}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_comparison_has_its_folder_to_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    table = ["--task", "tabular", "--base", "mlp-4", "--motivated", "mlp-8", "--data", "digits", "--epochs", "1"]
    options = ["compare", *table, "--max-train-samples", "64", "--seeds", "1", "--output", str(output)]
    assert main(options) == 0
    before = contents(output)
    folder = RunFolder(output, resume=True)
    folder.lock()
    assert main([*options, "--resume"]) == 2
    assert "another program is training in this folder" in " ".join(capsys.readouterr().err.split())
    assert contents(output) == before
    folder.close()
    assert main([*options, "--resume"]) == 0


@pytest.mark.slow
def test_runs_that_write_into_the_folder_of_their_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(6):
            Image.new("RGB", (16, 16), (40 * number, 0, 0)).save(tmp_path / label / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    narrow = ["--base-kwargs", "width=2", "--motivated-kwargs", "width=4", "--batch-size", "4"]
    for _ in range(2):
        assert main(["train", "--data", ".", "--image-size", "16", "--epochs", "1", *narrow]) == 0
        assert "2 classes" in capsys.readouterr().out
    first = min(Path("runs").iterdir())
    assert main(["train", "--output", str(first), "--epochs", "2", "--resume"]) == 0
