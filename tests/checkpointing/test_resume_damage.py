"""What is damaged, lost or cannot be written is told on resuming, and made anew where that can be done."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from resuming import EVERY_STEP, make, same, whole_run
from runs import CONFIG, steps, stop_at

from seeking import RunError, SeekingError
from seeking.checkpointing import metrics_log, run_dir, snapshot
from seeking.checkpointing.weights import read_metadata, write_tensors
from seeking.errors import RunWarning
from seeking.training import RunFolder, evaluation


def test_best_weights_that_cannot_be_written_are_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.5, 0.5, 0.9, 0.9, 0.7, 0.7, 0.6, 0.6])
    failed: list[str] = []

    def failing(content: Any, path: Path, about: Any, *rest: Any) -> None:
        if path.name == "base.best.safetensors" and about["epoch"] == 2 and not failed:
            failed.append(path.name)
            raise RunError(f"{path}: cannot be written (No space left on device)")
        write_tensors(content, path, about, *rest)

    monkeypatch.setattr(run_dir, "write_tensors", failing)
    trainer = make(output=tmp_path / "run", config=dataclasses.replace(EVERY_STEP, epochs=4))
    measure = evaluation.measure
    monkeypatch.setattr(evaluation, "measure", lambda *given: {**measure(*given), "accuracy": next(accuracies)})
    with pytest.warns(RunWarning, match="No space left"):
        result = trainer.fit()
    assert {name: best["epoch"] for name, best in result.best.items()} == {"base": 2, "motivated": 2}
    for name, best in result.best.items():
        assert read_metadata(tmp_path / "run" / f"{name}.best.safetensors") == best


def test_a_pipe_in_a_files_place_is_no_file(tmp_path: Path) -> None:
    """Opening one would wait for ever."""
    with pytest.raises(KeyboardInterrupt):
        make(output=tmp_path / "run", config=CONFIG, listeners=[stop_at(2)]).fit()
    os.mkfifo(tmp_path / "run" / "base.best.safetensors")
    with pytest.warns(RunWarning, match="not a file; the best weights are looked for anew"):
        make(output=tmp_path / "run", config=CONFIG, resume=True).fit()


def test_a_state_too_large_to_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_STATE_BYTES", 1000)
    with pytest.raises(RunError, match="remembers too much"):
        make(output=tmp_path / "run", config=CONFIG).fit()
    assert not snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")


@pytest.mark.slow
def test_a_broken_checkpoint_is_set_aside_and_the_one_before_taken(tmp_path: Path) -> None:
    outputs = tmp_path / "whole", tmp_path / "parts"
    whole = whole_run(make, outputs[0], CONFIG)
    make(output=outputs[1], config=CONFIG).fit()
    newest = snapshot.list_checkpoints(outputs[1] / "checkpoints")[0] / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(RunWarning, match=r"step-00000012: damaged.*set aside, and the one before is used"):
        trainer = make(output=outputs[1], config=CONFIG, resume=True)
    assert trainer.progress.step == 6
    same(whole, (trainer, trainer.fit()), outputs)
    assert (outputs[1] / "checkpoints" / "damaged-step-00000012").is_dir()
    for path in snapshot.list_checkpoints(outputs[1] / "checkpoints"):
        (path / "manifest.json").unlink()
    with pytest.raises(SeekingError, match="none of 2 checkpoints is intact"):
        make(output=outputs[1], config=CONFIG, resume=True)


def test_best_weights_that_are_damaged_are_said_and_found_anew(tmp_path: Path) -> None:
    make(output=tmp_path / "run", config=CONFIG).fit()
    (tmp_path / "run" / "base.best.safetensors").write_bytes(b"nothing")
    longer = dataclasses.replace(CONFIG, epochs=3)
    with pytest.warns(RunWarning, match=r"base.best.safetensors: damaged.* looked for anew"):
        result = make(output=tmp_path / "run", config=longer, resume=True).fit()
    assert result.best["base"]["epoch"] == 3


@pytest.mark.parametrize("cut", [0, 1, 57, -1])
def test_damaged_metrics(cut: int, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        make(output=output, config=CONFIG, listeners=[stop_at(8)]).fit()
    file = output / "metrics.jsonl"
    rows = file.read_bytes()
    file.write_bytes(rows[:cut])
    with pytest.warns(RunWarning, match="rows are missing"):
        result = make(output=output, config=CONFIG, resume=True).fit()
    assert [row["step"] for row in steps(result)][-3:] == [9, 10, 11]
    assert list(metrics_log.read_rows(file)) == result.history


def test_a_record_of_any_claimed_length_is_not_read_whole(tmp_path: Path) -> None:
    make(output=tmp_path / "run", config=CONFIG).fit()
    folder = RunFolder(tmp_path / "run", resume=True)
    with folder, pytest.warns(RunWarning, match="rows are missing"):
        assert len(folder.reopen({}, 2**62)) == 15


def test_a_damaged_row_of_the_metrics_is_named(tmp_path: Path) -> None:
    output = tmp_path / "run"
    make(output=output, config=CONFIG).fit()
    file = output / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:3], "x" + lines[3][1:], *lines[4:]]))
    with pytest.raises(SeekingError, match=r"metrics.jsonl, line 4: damaged.*move the file away"):
        make(output=output, config=CONFIG, resume=True).fit()
    file.unlink()
    with pytest.warns(RunWarning, match="rows are missing"):
        make(output=output, config=CONFIG, resume=True).fit()


def test_a_run_without_its_checkpoints_is_not_begun_anew(tmp_path: Path) -> None:
    output = tmp_path / "run"
    make(output=output, config=CONFIG).fit()
    shutil.rmtree(output / "checkpoints")
    with pytest.raises(SeekingError, match=r"best.safetensors is there, but no checkpoint; overwrite"):
        make(output=output, config=CONFIG, resume=True)
    assert (output / "base.best.safetensors").exists()
