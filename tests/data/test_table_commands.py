"""Commands that train on a user's table."""

import json
from pathlib import Path
from typing import Any

import pytest
from users_tables import GOOD

from seeking import SeekingError
from seeking.checkpointing.run_dir import RunFolder
from seeking.cli import main
from seeking.data.table import prepare_rows


@pytest.mark.slow
def test_models_and_data_of_another_task_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    data = ["train", "--data", str(tmp_path / "a.csv"), "--output", str(tmp_path / "out")]
    assert main([*data, "--task", "tabular"]) == 2
    assert "resnet8 is a model of --task images, but the task is tabular" in capsys.readouterr().err
    assert main([*data, "--base", "mlp-4", "--motivated", "mlp-8"]) == 2
    assert "mlp-4 is a model of --task tabular, but the task is images" in capsys.readouterr().err
    assert main([*data, "--loss", "mse"]) == 2
    assert "the task is images, whose data are not for --loss mse; give --task tabular" in capsys.readouterr().err
    assert main(data) == 2
    assert "not a folder or a parquet file; for a table, give --task tabular" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["a.csv", "wine"])
def test_columns_are_told_of_before_a_run_is_overwritten(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that contradict each other are refused, and options that are not used are told."""

    def stop(*given: Any, **options: Any) -> None:
        raise SeekingError("here it would begin")

    monkeypatch.setattr("seeking.run_commands.trainer", stop)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(GOOD)
    with RunFolder("out") as folder:
        folder.create({}, None)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    options = ["--label-column", "city", "--ignore-columns", "city"] if data == "a.csv" else ["--label-column", "zzz"]
    models = ["--task", "tabular", "--base", "mlp-4", "--motivated", "mlp-8", "--output", "out", "--overwrite"]
    assert main(["train", "--data", data, *models, *options]) == 2
    told = capsys.readouterr().err.splitlines()
    if data == "wine":
        assert told[0] == "seeking: --label-column is not used by --task tabular with data wine"
        assert told[1:] == ["seeking: here it would begin"]
    else:
        (line,) = told
        assert line.startswith("seeking: city is the label column of a.csv, so it cannot be in --ignore-columns")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "compare"])
def test_commands_train_on_a_users_table(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_text(
        "age,city,answer\n" + "".join(f"{n % 7},{'Rome' if n % 2 else 'Bern'},{n % 2}\n" for n in range(120))
    )
    output = tmp_path / "out"
    models = ["--base", "mlp-4", "--motivated", "mlp-8", "--epochs", "1"]
    arguments = [command, "--task", "tabular", *models, "--label-column", "answer", "--category-columns", "city"]
    arguments += ["--seeds", "1"] if command == "compare" else []
    assert main([*arguments, "--data", str(tmp_path / "train.csv"), "--output", str(output)]) == 0
    if command == "train":
        assert "rows of train.csv, held out" in capsys.readouterr().out
        summary = json.loads((output / "summary.json").read_text())
        assert prepare_rows(summary["preparation"], tmp_path / "train.csv").shape == (120, 3)
        assert main([command, "--output", str(output), "--resume", "--epochs", "2"]) == 0
