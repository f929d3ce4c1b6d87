"""What ``seeking show`` tells of one run and of many."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from runs import CONFIG, run

from seeking import SeekingError
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
    heading, rows = runs_table(runs)
    assert heading[0] == "run"
    by_name = {row[0]: row for row in rows}
    assert [*by_name] == ["first", "group/second", "third"]
    assert by_name["first"][3] == "2/2" and by_name["first"][4].endswith("%")
    assert "condition=decrease:1" in by_name["first"][6] and "lr=" not in by_name["first"][6]
    assert by_name["group/second"][3] == "2/2, unfinished"
    assert by_name["group/second"][4:6] == by_name["first"][4:6]
    assert "metrics.jsonl, line 1: damaged" in by_name["third"][6]
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show", str(runs)]) == 0
    assert "group/second" in capsys.readouterr().out


def test_a_run_of_a_length_in_steps_is_told_in_steps(tmp_path: Path) -> None:
    run(dataclasses.replace(CONFIG, max_steps=3), output=tmp_path / "run")
    assert runs_table(tmp_path)[1][0][3] == "3/3 steps"


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
    assert runs_table(tmp_path)[1][0][4:6] == ("0.2500", "0.2500")


def test_a_comparison_lists_its_runs(tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder(tmp_path / "both", kind="comparison").create({**CONFIG.recorded(), "seeds": 1}, None)
    assert main(["show", str(tmp_path / "both")]) == 0
    assert "of them motivated" not in capsys.readouterr().out
    shutil.copytree(runs / "first", tmp_path / "both/pair-seed0")
    assert main(["show", str(tmp_path / "both")]) == 0
    assert "pair-seed0" in capsys.readouterr().out
    assert [row[3] for row in runs_table(tmp_path)[1]] == ["comparison, unfinished", "2/2"]


def test_what_was_changed_comes_first(runs: Path) -> None:
    text, intact = describe(runs / "first")
    assert intact
    first, second = text.split("options as they are by default:")
    assert first.splitlines()[1] == "options that were changed:"
    assert "'condition': 'decrease:1'" in first and "'lr': 0.05" in second


def test_a_folder_without_runs_is_told(runs: Path) -> None:
    with pytest.raises(SeekingError, match="notes: neither a run folder"):
        runs_table(runs / "notes")
    with pytest.raises(SeekingError, match="cannot be read"):
        runs_table(runs / "nowhere")
