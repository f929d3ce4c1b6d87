"""Commands that train on a user's table."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from users_tables import GOOD, load, write

from seeking import SeekingError
from seeking.checkpointing.run_dir import RunFolder
from seeking.cli import main
from seeking.data.table import prepare_rows
from seeking.experiments.start import warn_of_other_data


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


COLUMNS: dict[str, list[Any]] = {"age": [7, 8, 9, 7], "city": ["Rome", "Bern"] * 2, "size": [1, None, 2, 3]}
INPUTS = {"age": ["age"], "city": ["city Bern", "city Rome"], "size": ["size", "size missing"]}


def table(path: Path, columns: Sequence[str], classes: Sequence[str] = "yn") -> Path:
    """With these columns in this order, and classes of these names."""
    return write(path, {**{name: COLUMNS[name] * 6 for name in columns}, "label": ([*classes] * 12)[:24]})


@given(
    orders=st.lists(st.permutations([*COLUMNS]), min_size=2, max_size=2),
    classes=st.lists(st.lists(st.sampled_from("nxyz"), min_size=2, max_size=3, unique=True), min_size=2, max_size=2),
)
@settings(max_examples=25)
def test_weights_of_a_run_on_other_columns_or_classes_are_told(
    orders: list[list[str]], classes: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By the first of each that differ; a head for another number of classes starts anew."""
    folder = tmp_path_factory.mktemp("run")
    before, now = (load(table(folder / "a.csv", *each)) for each in zip(orders, classes, strict=True))
    (folder / "summary.json").write_text(json.dumps({"preparation": before.train.preparation}))
    places = {"input": [[name for column in order for name in INPUTS[column]] for order in orders]}
    if len(classes[0]) == len(classes[1]):
        places["class"] = [sorted(names) for names in classes]
    expected = []
    for what, (were, are) in places.items():
        if were != are:
            place = next(place for place, was in enumerate(were) if was != are[place])
            expected.append(
                f"start_from: {what} {place + 1} of the weights in {folder}/w.safetensors is {were[place]}, but "
                f"{are[place]} in the data"
            )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_other_data({"base": f"{folder}/w.safetensors", "motivated": "pretrained"}, now.train.preparation)
    assert [str(warning.message).partition(";")[0] for warning in caught] == expected


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"preparation": 3}', '{"preparation": {"columns": []}}'])
def test_a_strange_summary_beside_weights_counts_for_nothing(content: str | None, tmp_path: Path) -> None:
    now = load(table(tmp_path / "a.csv", ["age"])).train.preparation
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_other_data({"base": str(tmp_path / "w.safetensors")}, now)


@pytest.mark.slow
def test_a_run_tells_of_weights_of_other_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["--task", "tabular", "--base", "mlp-4", "--motivated", "mlp-8", "--max-steps", "1", "--batch-size", "8"]
    first, second = (table(tmp_path / f"{name}.csv", name.split("-")) for name in ("age-size", "size-age"))
    assert main(["train", *models, "--data", str(first), "--output", str(tmp_path / "first")]) == 0
    weights = tmp_path / "first" / "motivated.last.safetensors"
    start = ["--start-from", f"motivated={weights}"]
    for data, told in ((first, False), (second, True)):
        capsys.readouterr()
        assert main(["train", *models, *start, "--data", str(data), "--output", str(tmp_path / data.stem)]) == 0
        line = f"--start-from: input 1 of the weights in {weights} is age, but size in the data"
        assert (line in capsys.readouterr().err) == told
