"""Errors in reading the files of a run are not damage, and change nothing."""

import contextlib
import errno
import shutil
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs import differences
from tiny import ERRORS, Failing, contents, tiny

from seeking import RunError, SeekingError
from seeking.checkpointing import snapshot
from seeking.errors import RunWarning
from seeking.report.folder import describe
from seeking.training import RunFolder

# Errors in reading.


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_an_error_in_reading_is_an_error_and_changes_nothing(number: int, run: Path) -> None:
    """Whichever operation fails, once or from then on."""
    before, after = contents(run), 0
    while True:
        with warnings.catch_warnings(), Failing(run, number, after) as failing:
            warnings.simplefilter("error", RunWarning)
            with contextlib.suppress(SeekingError):
                tiny(RunFolder(run, resume=True), resume=True)
        assert contents(run) == before
        if not failing.failed:
            break
        after += 1
    assert after > 20


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_an_error_in_reading_is_no_damage(number: int, run: Path) -> None:
    newest = snapshot.list_checkpoints(run / "checkpoints")[0]
    for only in ("state.json", "tensors.safetensors", "manifest.json", "checkpoints", "base.best", "config.json"):
        before = contents(run)
        with Failing(run, number, only=only):
            for act in (lambda: describe(run), lambda: tiny(RunFolder(run, resume=True), resume=True).fit()):
                with pytest.raises((SeekingError, RunError)):
                    act()
        after = contents(run)
        assert {
            name: after[name] for name in before if name not in ("manifest.json", "metrics.jsonl", "summary.json")
        } == {name: before[name] for name in before if name not in ("manifest.json", "metrics.jsonl", "summary.json")}
    assert newest.is_dir()
    assert tiny(RunFolder(run, resume=True), resume=True).fit().cost.batches == 8


@pytest.mark.slow
@pytest.mark.fuzz
@settings(max_examples=max(15, settings.default.max_examples // 20))
@given(
    number=st.sampled_from(ERRORS),
    after=st.integers(0, 5) | st.integers(0, 250),
    only=st.sampled_from(("", "checkpoints", "state.json", "tensors", "manifest", "best", "last", "metrics", "config")),
    times=st.sampled_from((1, 2, 5, 1000)),
)
@example(number=5, after=72, only="checkpoints", times=1)  # As it is asked whether a checkpoint is there.
def test_a_run_whose_files_cannot_be_read_for_a_while_ends_as_the_undisturbed_one(
    number: int, after: int, only: str, times: int, finished: Path, stopped: Path
) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        run = Path(shutil.copytree(stopped, Path(folder) / "run"))
        with contextlib.suppress(SeekingError, RunError), Failing(run, number, after, only, times):
            tiny(RunFolder(run, resume=True), resume=True).fit()
        assert not list(run.glob("checkpoints/damaged-*")), "an error in reading was taken for damage"
        tiny(RunFolder(run, resume=True), resume=True).fit()
        assert not differences(run, finished)
