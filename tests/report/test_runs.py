"""What ``seeking show`` tells of one run and of many."""

import dataclasses
import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import CONFIG, run

from seeking import SeekingError, TrainConfig
from seeking.checkpointing import run_files
from seeking.cli import main
from seeking.report.folder import describe
from seeking.report.runs import runs_table
from seeking.training import RunFolder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run(CONFIG, output=folder / "first")
    shutil.copytree(folder / "first", folder / "group/second")
    (folder / "group/second/summary.json").unlink()
    shutil.copytree(folder / "first", folder / "third")
    (folder / "third/metrics.jsonl").write_text("nonsense\n")
    (folder / "notes").mkdir()
    return folder


def test_runs_are_listed(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    common, (heading, rows) = runs_table(runs)
    assert heading[0] == "run"
    by_name = {row[0]: row for row in rows}
    assert [*by_name] == ["first", "group/second", "third"]
    assert by_name["first"][1] == "2/2" and by_name["first"][2].endswith("%")
    assert "condition=decrease:1" in common and "lr=" not in common
    assert by_name["group/second"][1] == "2/2, unfinished"
    assert by_name["group/second"][2:4] == by_name["first"][2:4]
    assert by_name["first"][4] == by_name["group/second"][4] == ""
    assert "metrics.jsonl, line 1: damaged" in by_name["third"][4]
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert "group/second" in shown and common in shown


def test_options_are_told_once_or_of_each_run_in_which_they_differ(runs: Path, tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {"a": {}, "b": {"lr": 0.3}, "c": {"lr": 0.4, "base": "resnet14"}}
    for name, changed in changes.items():
        shutil.copytree(runs / "first", tmp_path / name)
        (tmp_path / name / "manifest.json").unlink()  # It knows the sum of the file that is changed here.
        file = tmp_path / name / "config.json"
        models = {"base": "resnet8", "motivated": "resnet14"}
        file.write_text(json.dumps({**json.loads(file.read_text()), **models, **changed}))
    common, (_, rows) = runs_table(tmp_path)
    own = {row[0]: row[4] for row in rows}
    assert own == {"a": "resnet8 in resnet14", "b": "resnet8 in resnet14, lr=0.3", "c": "resnet14 in resnet14, lr=0.4"}
    assert "condition=decrease:1" in common and "resnet" not in common and "lr=" not in common


def test_runs_of_experiments_are_listed_and_may_have_nothing_in_common(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tiny-quick/arms/x/a-b/seed0", "tiny-quick/search/lr=0.1/x/a-b/seed1000000"):
        shutil.copytree(runs / "first", tmp_path / name)
    (tmp_path / name / "manifest.json").unlink()
    (tmp_path / name / "config.json").write_text(json.dumps(TrainConfig().recorded()))
    assert [row[0] for row in runs_table(tmp_path)[1][1]] == [
        "tiny-quick/arms/x/a-b/seed0",
        "tiny-quick/search/lr=0.1/x/a-b/seed1000000",
    ]
    assert main(["show", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("in common: nothing\n")


def test_a_run_of_a_length_in_steps_is_told_in_steps(tmp_path: Path) -> None:
    run(dataclasses.replace(CONFIG, max_steps=3), output=tmp_path / "run")
    assert runs_table(tmp_path)[1][1][0][1] == "3/3 steps"


def test_a_run_is_told_by_its_best_metric(tmp_path: Path, runs: Path) -> None:
    shutil.copytree(runs / "first", tmp_path / "run")
    for name, key in (("summary.json", "metrics"), ("config.json", None)):
        content = json.loads((tmp_path / "run" / name).read_text())
        if key:
            content[key] = {model: {**metrics, "f1": 0.25} for model, metrics in content[key].items()}
        else:
            content["best"] = "f1"
        (tmp_path / "run" / name).write_text(json.dumps(content))
    (tmp_path / "run/manifest.json").unlink()
    assert runs_table(tmp_path)[1][1][0][2:4] == ("0.2500", "0.2500")


def test_a_comparison_lists_its_runs(tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder(tmp_path / "both", kind="comparison").create({**CONFIG.recorded(), "seeds": 1}, None)
    assert main(["show", str(tmp_path / "both")]) == 0
    assert "of them motivated" not in capsys.readouterr().out
    shutil.copytree(runs / "first", tmp_path / "both/pair-seed0")
    assert main(["show", str(tmp_path / "both")]) == 0
    assert "pair-seed0" in capsys.readouterr().out
    assert [row[1] for row in runs_table(tmp_path)[1][1]] == ["comparison, unfinished", "2/2"]


@pytest.mark.parametrize("name", ["base.best.safetensors", "manifest.json", "config.json", "metrics.jsonl"])
def test_damage_to_a_run_of_a_comparison_is_told(
    name: str, tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path, kind="comparison").create({**CONFIG.recorded(), "seeds": 1}, None)
    for run_of_it in ("pair-seed0", "base-seed0"):
        shutil.copytree(runs / "first", tmp_path / run_of_it)
    file = tmp_path / "pair-seed0" / name
    file.write_bytes(file.read_bytes()[:-9] + bytes(9))
    assert main(["show", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "base-seed0: intact" in told and f"pair-seed0: NOT intact; seeking show {file.parent} tells" in told


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError])
@pytest.mark.parametrize("operation", ["is_run", "read_options"])
def test_a_run_that_cannot_be_read_hides_no_others(
    operation: str, error: type[OSError], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of another user, or as one that is deleted while the runs are listed."""
    usual = getattr(run_files, operation)

    def failing(path: Path) -> Any:
        if path.name == "first":
            raise error(errno.EACCES, "no", str(path))
        return usual(path)

    before = [row[0] for row in runs_table(runs)[1][1]]
    monkeypatch.setattr(run_files, operation, failing)
    rows = runs_table(runs)[1][1]
    gone = error is FileNotFoundError and operation == "is_run"
    assert [row[0] for row in rows] == before[gone:]
    assert operation == "is_run" or "Errno" in rows[0][4]


def test_only_what_was_changed_is_listed_and_first(runs: Path) -> None:
    text, intact = describe(runs / "first")
    assert intact
    assert text.splitlines()[1] == "options that were changed from their defaults:"
    assert "'condition': 'decrease:1'" in text and "'lr'" not in text


def test_a_folder_without_runs_is_told(runs: Path) -> None:
    with pytest.raises(SeekingError, match="notes: neither a run folder"):
        runs_table(runs / "notes")
    with pytest.raises(SeekingError, match="cannot be read"):
        runs_table(runs / "nowhere")


def test_the_folder_of_a_model_of_others_is_not_shown_as_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 1}')
    assert main(["show", str(tmp_path)]) == 2
    assert "its config.json has no options of a run" in " ".join(capsys.readouterr().err.split())
