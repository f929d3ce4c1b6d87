"""What a run shows: one line on a terminal of any width, and a line now and then elsewhere."""

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from runs import CONFIG, batches, two_models

from seeking import Trainer
from seeking.report.progress import INTERVAL, RunProgress
from seeking.report.status import cut, one_line, short_number

LOSSES = st.floats(allow_nan=True, allow_infinity=True)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(
    width: int, rows: list[dict[str, Any]], title: str, terminal: bool, seconds: float = 0.0, **options: Any
) -> list[str]:
    """What a listener of these rows prints, as lines without the control codes of terminals."""
    file, clock = io.StringIO(), Clock()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    with RunProgress(console, title, "images", clock, **options) as progress:
        for row in rows:
            progress(row)
            clock.now += seconds
        if progress._bar:
            progress._bar.refresh()
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()))


def steps(count: int, base: float = 1.0, motivated: float = 2.0, **more: Any) -> list[dict[str, Any]]:
    start = {"kind": "start", "epochs": 2, "epoch_length": count, "steps": 2 * count}
    losses = {"loss": base, "motivated_loss": motivated, "lr": 0.05, "samples": 64}
    return [start, *({"kind": "step", "step": step, **losses, **more} for step in range(count))]


@given(st.integers(20, 200), st.text(max_size=80), LOSSES, LOSSES, st.lists(st.text(max_size=30), max_size=3))
def test_a_line_fits_and_keeps_the_losses(
    width: int, title: str, base: float, motivated: float, notes: list[str]
) -> None:
    line, status = one_line(width, title, {"base": base, "motivated": motivated}, notes)
    assert short_number(base) in status and short_number(motivated) in status
    shortest = len(f"b {short_number(base)} m {short_number(motivated)}") + 1
    assert cell_len(line) + 1 + cell_len(status) <= max(width, shortest)
    assert cell_len(cut(title, width)) <= width


@settings(max_examples=20)
@given(st.integers(60, 120), st.text(st.characters(categories=["L", "N", "Z"]), max_size=60), st.floats(0, 1e9))
def test_on_a_terminal_nothing_wraps(width: int, title: str, loss: float) -> None:
    evaluation = {"kind": "eval", "epoch": 1, "step": 9, "base": {"accuracy": 0.975}, "motivated": {"accuracy": 0.96}}
    saving = {"kind": "saving", "step": 3, "path": "out"}
    rows = [*steps(3, loss, loss), saving, *steps(3, loss, loss)[1:], evaluation]
    lines = shown(width, rows, title, terminal=True)
    assert all(cell_len(line) <= width for line in lines if "epoch" not in line)
    assert all(cell_len(line) <= max(width, 52) for line in lines)
    bar = lines[-2] if not lines[-1].strip() else lines[-1]
    assert "%" in bar and ":" in bar and bar.count(short_number(loss)) == 2 and "━" in bar
    if width >= 80:
        assert f"base {short_number(loss)} motivated {short_number(loss)}" in bar


def test_names_give_way_before_losses() -> None:
    title, status = one_line(45, "efficientnet_b0 in efficientnet_b2", {"base": 1.5, "motivated": 2.5}, ["saved"])
    assert (title, status) == ("efficientnet…", "loss base 1.500 motivated 2.500")


def test_a_pipe_gets_a_line_now_and_then() -> None:
    lines = [line for line in shown(40, steps(101), "a in b", terminal=False, seconds=INTERVAL / 10) if line]
    assert len(lines) == 10
    assert lines[3] == (
        "a in b: step 40/202, loss base 1.000 motivated 2.000, lr 0.05, 64 images/s, 100.0% of batches motivated, "
        "2:42 left"
    )


def test_an_epoch_without_evaluation_is_told_by_its_losses() -> None:
    both = steps(3)
    base = [{name: value for name, value in row.items() if name != "motivated_loss"} for row in both]
    for rows, losses in ((both, "base 1.000 motivated 2.000"), (base, "base 1.000")):
        lines = shown(120, [*rows, {"kind": "eval", "epoch": 1, "step": 3}], "a in b", terminal=False)
        assert lines[-2].split(", ")[0] == f"a in b: epoch 1/2: loss {losses}"


@pytest.mark.slow
def test_fit_shows_and_draws_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str], curves: None) -> None:
    Trainer(*two_models(), **batches(), config=CONFIG, output=tmp_path / "run", progress=True).fit()
    out, err = capsys.readouterr()
    assert not out
    assert re.search(r"^OneStage in OneStage: epoch 2/2: accuracy base [\d.]+% motivated", err, re.MULTILINE)
    assert (tmp_path / "run/curves.png").stat().st_size > 10_000
    right = {"right": lambda outputs, targets: (outputs.argmax(1) == targets).float().mean()}
    best = dataclasses.replace(CONFIG, best="right", best_mode="max")
    Trainer(*two_models(), **batches(), config=best, metrics=right, progress=True).fit()
    assert re.search(r"epoch 2/2: right base [01]\.\d+ motivated [01]\.\d+", capsys.readouterr().err)
    Trainer(*two_models(), **batches(), config=CONFIG, output=tmp_path / "quiet", progress=False).fit()
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "quiet/curves.png").exists()


@pytest.mark.parametrize(
    ("best", "width", "told"),
    [
        (None, 120, "loss base 0.5000 motivated 0.4000, f1 base 0.2500 motivated 0.1250, 100.0% of batches motivated"),
        ("f1", 120, "f1 base 0.2500 motivated 0.1250, 100.0% of batches motivated"),
        ("loss", 60, "loss base 0.5000 motivated 0.4000"),
        ("lost", 60, "loss base 0.5000 motivated 0.4000"),
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_metrics_of_ones_own_are_told_the_best_one_first(
    best: str | None, width: int, told: str, terminal: bool
) -> None:
    evaluation = {"kind": "eval", "epoch": 1, "step": 3, "base": {"loss": 0.5, "f1": 0.25}}
    rows = [*steps(3), {**evaluation, "motivated": {"loss": 0.4, "f1": 0.125}}]
    line = next(line for line in shown(width, rows, "", terminal, best=best) if "epoch" in line)
    assert line.partition("epoch 1/2: ")[2].startswith(told)
    assert not terminal or len(line) < width


def test_a_motivated_model_alone_has_no_motivated_batches() -> None:
    start, *rows = steps(3)
    alone = [{name: value for name, value in row.items() if name != "loss"} for row in rows]
    evaluation = {"kind": "eval", "epoch": 1, "step": 3, "motivated": {"accuracy": 0.5}}
    for steps_of, told in ((alone, False), (rows, True)):
        lines = shown(120, [start, *steps_of, evaluation], "", terminal=False)
        assert any("of batches motivated" in line for line in lines) == told


@pytest.mark.parametrize("first", [True, False])
def test_a_base_at_rest_is_told(first: bool) -> None:
    start, *both = steps(3)
    resting = [{name: value for name, value in row.items() if name != "loss"} for row in both]
    evaluation = {"kind": "eval", "step": 3, "base": {"accuracy": 0.1}, "motivated": {"accuracy": 0.5}}
    parts = (resting, both) if first else (both, resting)
    rows = [start, *parts[0], {**evaluation, "epoch": 1}, *parts[1], {**evaluation, "epoch": 2}]
    told = ["base at rest" in line for line in shown(120, rows, "", terminal=False) if "accuracy" in line]
    assert told == [first, not first]
