"""Runs whose length, evaluations or warm-up are a number of steps."""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import stop_at
from safetensors.torch import load_file
from streams import DATA, Stream, rows, trainer
from torch.utils.data import DataLoader

from seeking import SeekingError, TrainConfig
from seeking.errors import RunWarning
from seeking.report.folder import describe
from seeking.training import evaluation
from seeking.training.progress import Progress


@settings(max_examples=8)
@given(
    counts=st.lists(st.integers(1, 24), min_size=1, max_size=3),
    max_steps=st.integers(1, 20),
    every=st.none() | st.integers(1, 6),
)
def test_a_run_has_as_many_steps_as_it_is_asked_for(counts: list[int], max_steps: int, every: int | None) -> None:
    run = trainer(DataLoader(Stream(*counts), 4), max_steps=max_steps, eval_every_steps=every)
    run.fit()
    assert [row["step"] for row in rows(run)] == [*range(max_steps)]
    evaluated = [row["step"] for row in rows(run, "eval")]
    assert evaluated[-1] == max_steps
    if every:
        assert evaluated == [*range(every, max_steps, every), max_steps]


@pytest.mark.parametrize("max_steps", [4, 6, 7])
def test_a_run_of_a_known_length_may_end_within_an_epoch(max_steps: int, tmp_path: Path) -> None:
    """And be continued as if it had never been meant to end there."""
    options: dict[str, Any] = {"schedule": "constant", "eval_every_steps": 5}
    whole = trainer(DataLoader(DATA, 4, shuffle=True), max_steps=17, **options)
    whole.fit()
    trainer(DataLoader(DATA, 4, shuffle=True), tmp_path / "run", max_steps=max_steps, **options).fit()
    longer = trainer(DataLoader(DATA, 4, shuffle=True), tmp_path / "run", resume=True, max_steps=17, **options)
    longer.fit()
    assert rows(longer) == rows(whole)
    assert [row for row in rows(longer, "eval") if row["step"] != max_steps] == rows(whole, "eval")


def test_what_is_measured_between_epochs_is_shown(tmp_path: Path) -> None:
    run = trainer(DataLoader(DATA, 4), tmp_path / "run", max_steps=8, eval_every_steps=3)
    run.fit()
    assert [row["epoch"] for row in run.record.rows() if row["kind"] == "eval"] == [0.5, 1, 1.333]
    text, _ = describe(tmp_path / "run")
    assert "epoch 1.333: base accuracy" in text


def test_an_evaluation_that_fails_is_made_up_for_on_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"max_steps": 9, "eval_every_steps": 4}
    whole = trainer(DataLoader(Stream(), 4), **options)
    whole.fit()
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> Any:
            raise RuntimeError("the disk is gone")

        patch.setattr(evaluation, "measure", fail)
        with pytest.raises(RuntimeError, match="the disk is gone"):
            trainer(DataLoader(Stream(), 4), tmp_path / "run", **options).fit()
    resumed = trainer(DataLoader(Stream(), 4), tmp_path / "run", resume=True, **options)
    assert resumed.progress.step == 4
    resumed.fit()
    assert rows(resumed) == rows(whole)
    assert rows(resumed, "eval") == rows(whole, "eval")


@pytest.mark.parametrize("max_steps", [8, 12], ids=["within an epoch", "at the end of one"])
@pytest.mark.parametrize("every", [None, 5])
@pytest.mark.parametrize("stream", [False, True])
def test_a_run_cut_off_after_its_last_step_ends_as_if_it_had_not_been(
    stream: bool, every: int | None, max_steps: int, tmp_path: Path
) -> None:
    def loader() -> Any:
        return DataLoader(Stream(), 4) if stream else DataLoader(DATA, 4, shuffle=True)

    options: dict[str, Any] = {"max_steps": max_steps, "eval_every_steps": every, "norm": "private"}
    whole = trainer(loader(), tmp_path / "whole", **options)
    result = whole.fit()

    with pytest.raises(KeyboardInterrupt):
        trainer(loader(), tmp_path / "cut", listeners=[stop_at(max_steps - 1)], **options).fit()
    for _ in range(2):  # Resumed once more, it is at its end already.
        cut = trainer(loader(), tmp_path / "cut", resume=True, **options)
        assert cut.fit().metrics == result.metrics
        kept = [row for row in cut.record.rows() if row["kind"] == "eval"]
        assert kept == [row for row in whole.record.rows() if row["kind"] == "eval"]
        for name in ("base.last.safetensors", "motivated.last.safetensors"):
            ours, theirs = (load_file(tmp_path / folder / name) for folder in ("whole", "cut"))
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_that_is_resumed_to_end_earlier_is_evaluated_there(tmp_path: Path) -> None:
    options: dict[str, Any] = {"schedule": "constant", "eval_every_steps": 4}
    trainer(DataLoader(Stream(), 4), tmp_path / "run", max_steps=9, **options).fit()
    with pytest.warns(RunWarning, match="max_steps is 5, and the run has 9 steps in . whole epochs already"):
        run = trainer(DataLoader(Stream(), 4), tmp_path / "run", resume=True, max_steps=5, **options)
    result = run.fit()
    last = rows(run, "eval")[-1]
    assert last["step"] == 9
    assert result.metrics["base"] == last["base"]


@given(length=st.integers(1, 5), step=st.integers(0, 20), epochs=st.integers(1, 5), max_steps=st.integers(1, 20))
def test_a_run_that_is_longer_than_it_is_to_be_is_told(length: int, step: int, epochs: int, max_steps: int) -> None:
    state = {"epoch_length": length, "epoch": step // length, "step": step, "step_in_epoch": step % length}
    for limit, planned in ((None, epochs * length), (max_steps, max_steps)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            Progress(length, epochs, max_steps=limit).load_state_dict(state)
        assert bool(told) == (step > planned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps is 0; it must be 1 or more"),
        ({"eval_every_steps": 0}, "eval_every_steps is 0; it must be 1 or more"),
        ({"warmup_steps": 3, "warmup_epochs": 1.0}, "warmup_epochs is 1.0 and warmup_steps 3; give one"),
        ({"warmup_steps": 9, "max_steps": 9}, "warmup_steps is 9 of 9 steps"),
        ({"eval_every_steps": 3, "norm": "recalibrated"}, "between epochs only"),
    ],
)
def test_lengths_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        TrainConfig(**options)


@pytest.mark.parametrize(("steps", "told"), [(6, None), (5, "warmup_epochs is 1.25, 5 steps, and the run has 5")])
def test_a_warm_up_in_epochs_that_is_no_shorter_than_a_run_in_steps_is_told(steps: int, told: str | None) -> None:
    with pytest.warns(RunWarning, match=told) if told else contextlib.nullcontext():
        trainer(DataLoader(DATA, len(DATA) // 4), warmup_epochs=1.25, max_steps=steps)
