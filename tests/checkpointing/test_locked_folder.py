"""A run writes to the folder that it has locked, wherever that or the program is moved."""

import contextlib
import os
import tempfile
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import contents, deleted, moved, replaced, stop_after, tiny

from seeking import RunError, SeekingError
from seeking.checkpointing import run_files
from seeking.checkpointing.place import Place
from seeking.errors import RunWarning
from seeking.report.folder import describe


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_folder_is_left_to_others_when_nothing_is_being_written_to_it(
    error: type[BaseException], tmp_path: Path
) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["kind"] == "step":
            trainer.save()
            raise error

    trainer = tiny(tmp_path / "run", listeners=[stop])
    write = trainer.saver.folder.write_checkpoint
    slowly = mock.patch.object(
        trainer.saver.folder, "write_checkpoint", lambda *args: (time.sleep(0.3), write(*args))[1]
    )
    with slowly, pytest.raises(error):
        trainer.fit()
    assert not [thread for thread in threading.enumerate() if thread.name == "seeking-writer"]


# The folder that was locked.


def unlocked(run: Path) -> None:
    (run / run_files.LOCK).unlink()


def emptied(run: Path) -> None:
    moved(run)
    run.mkdir()


def moved_and_back(run: Path) -> None:
    moved(run)
    run.with_name("elsewhere").rename(run)


@pytest.mark.slow
@pytest.mark.fuzz
@settings(max_examples=max(15, settings.default.max_examples // 20))
@given(
    act=st.sampled_from((moved, deleted, replaced, emptied, unlocked, moved_and_back)),
    step=st.integers(0, 7),
    wait=st.booleans(),
)
def test_a_folder_that_is_no_longer_the_one_that_was_locked_is_not_written_to(act: Any, step: int, wait: bool) -> None:
    """One that is back is."""
    states: list[Any] = []

    def state() -> dict[str, Any]:
        left = contents(run) if run.exists() and act is not moved_and_back else {}
        return {name: text for name, text in left.items() if act is not unlocked or name != "metrics.jsonl"}

    def change() -> None:
        if wait or act is unlocked:  # Else what is found changes meanwhile.
            with contextlib.suppress(RunError):
                trainer.saver.wait()
        act(run)
        states.append(state())

    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        run = Path(name) / "run"
        trainer = tiny(run, listeners=[stop_after(step, change)])
        if act is moved_and_back:
            trainer.fit()
            return
        with pytest.raises(RunError, match="no longer the folder that this run has locked"):
            trainer.fit()
        # What was being written meanwhile may still come to what is left.
        assert state() == states[0] or (act is deleted and not wait)


@pytest.mark.slow
def test_nothing_comes_to_a_folder_that_takes_the_path_right_after_any_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer checks, the folder is moved, and the writer goes on."""
    real, checks = Place.check, 0

    def check(place: Place, *args: Any) -> None:
        nonlocal checks
        real(place, *args)
        checks += 1
        if checks == last:
            emptied(place.path)

    monkeypatch.setattr(Place, "check", check)
    for last in range(1, 1000):
        checks, run = 0, tmp_path / str(last) / "run"
        with contextlib.suppress(RunError, SeekingError), warnings.catch_warnings():
            warnings.simplefilter("ignore", RunWarning)
            tiny(run).fit()
        if checks < last:  # Each has had its turn.
            break
        assert not contents(run), f"after check {last}"
    assert last > 20


@pytest.mark.parametrize("step", [None, 0, 2])
def test_code_of_the_user_may_change_the_working_folder(
    step: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    leave = partial(os.chdir, tmp_path / "elsewhere")
    trainer = tiny(Path("run"), listeners=[] if step is None else [stop_after(step, leave)])
    if step is None:
        leave()
    trainer.fit()
    assert describe(tmp_path / "run")[1] and (tmp_path / "run/summary.json").exists()
    assert not [*(tmp_path / "elsewhere").iterdir()]
