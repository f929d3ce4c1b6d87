"""The files of a run: manifest, options and rows, their rights, and what killed saves have left."""

import json
import os
import stat
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tiny import files_of, tiny

from seeking import RunError
from seeking.checkpointing import manifest, run_files
from seeking.errors import RunWarning
from seeking.report.folder import describe
from seeking.training import RunFolder


def without_marker(run: Path) -> Path:
    """As an older version has left it."""
    (run / "manifest.json").unlink()
    return run


def test_runs_of_older_versions_are_known(run: Path) -> None:
    assert run_files.is_run(without_marker(run))
    (run / "config.json").unlink()
    assert run_files.is_run(run), "the checkpoint has the options"
    tiny(RunFolder(run, resume=True), resume=True).fit()
    assert describe(run)[1] and (run / "manifest.json").exists()


@pytest.mark.parametrize("lost", ["manifest", "entries"])
def test_a_lost_manifest_is_told_and_the_next_resume_lists_every_file_again(lost: str, run: Path) -> None:
    (run / "trackers.json").write_text("{}")
    before = {name for name in files_of(run) if "/" not in name} - {"manifest.json"}
    if lost == "manifest":
        (run / "manifest.json").unlink()
    else:
        manifest.Manifest(run).write()  # Killed as soon as it was made anew.
    text = describe(run)[0]
    assert all(f"{name}: not checked, since manifest.json does not list it" in text for name in before), text
    with pytest.warns(RunWarning, match="lists base.best.safetensors, .*trackers.json from now on, as they are"):
        tiny(RunFolder(run, resume=True), resume=True).fit()
    listed = manifest.Manifest.read(run)
    assert listed and listed.files.keys() == before
    text, intact = describe(run)
    assert intact and "not checked" not in text


def test_a_name_in_the_manifest_that_no_file_of_a_run_has_is_listed_no_more(run: Path) -> None:
    text = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(text.replace('"motivated.last', '"otivated.last'))
    assert not describe(run)[1]
    with pytest.warns(RunWarning, match=r"lists otivated.last.safetensors, which no run writes"):
        tiny(RunFolder(run, resume=True), resume=True).fit()
    assert describe(run)[1]


def test_files_have_the_rights_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        tiny(tmp_path / "run").fit()
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / "run" / name).stat().st_mode) for name in files_of(tmp_path / "run")}
    assert set(modes.values()) == {0o640}, modes


class Crash(BaseException):
    pass


@pytest.mark.slow
def test_wherever_a_program_dies_the_manifest_fits_the_files(tmp_path: Path) -> None:
    """Before each renaming."""
    number = 0
    while True:
        output, count = tmp_path / f"run-{number}", 0

        def replace(self: Path, target: Path, real: Any = Path.replace, number: int = number) -> Any:
            nonlocal count
            count += 1
            if count > number:
                raise Crash
            return real(self, target)

        with mock.patch.object(Path, "replace", replace):
            try:
                tiny(output).fit()
                break
            except (Crash, RunError):
                pass
        if (output / "manifest.json").exists():
            assert describe(output)[1], describe(output)[0]
        tiny(RunFolder(output, resume=True), resume=True).fit()
        assert describe(output)[1]
        number += 1
    assert number > 20


# Leftovers and lost files.


def test_what_killed_saves_have_left_goes_with_the_next_lock(run: Path) -> None:
    (run / ".base.last.safetensors.writing").mkdir()
    (run / ".base.last.safetensors.writing" / ".tmpAbC123").write_bytes(bytes(99))
    (run / ".config.json.writing").write_text("half")
    (run / "checkpoints" / ".step-00000009.writing").mkdir()
    (run / "checkpoints" / ".step-00000009.writing" / ".tmpAbC123").write_bytes(bytes(99))
    (run / ".mine.writing").write_text("mine")
    tiny(RunFolder(run, resume=True), resume=True).fit()
    assert [path.name for path in run.rglob(".*") if path.name != run_files.LOCK] == [".mine.writing"]


def test_lost_options_are_those_of_the_checkpoint(run: Path) -> None:
    options = json.loads((run / "config.json").read_text())
    for content in (None, b"{", b"[]", json.dumps({**options, "lr": 9}).encode()):
        (run / "config.json").unlink(missing_ok=True)
        if content:
            (run / "config.json").write_bytes(content)
        assert run_files.read_options(run) == options
    tiny(RunFolder(run, resume=True), resume=True).fit()
    assert json.loads((run / "config.json").read_text()) == options


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.b").write_text("x")
    written = manifest.Manifest(tmp_path, "comparison")
    written.announce("a.b", tmp_path / "a.b")
    read = manifest.Manifest.read(tmp_path)
    assert read and (read.kind, read.files) == ("comparison", written.files)
    assert manifest.check_file(tmp_path / "a.b") and not manifest.check_file(tmp_path / "c.d")


@pytest.mark.slow
def test_a_run_whose_rows_are_lost_is_drawn_without_a_warning(run: Path, curves: None) -> None:
    (run / "metrics.jsonl").write_bytes(b"")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        tiny(RunFolder(run, resume=True), resume=True, progress=True).fit()
    assert not [each.message for each in told if "artists" in str(each.message)]
    assert (run / "curves.png").exists()


# A long run.


def test_rows_are_read_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seeking.training import record

    monkeypatch.setattr(record, "TAIL", 3)
    trainer = tiny(tmp_path / "run")
    result = trainer.fit()
    assert len(trainer.record.last) == 3 < len(result.history)
    assert result.history == [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
