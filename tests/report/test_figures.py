"""Figures: any script's letters, honest axes, and legends that name what is drawn."""

import copy
import random
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import matplotlib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.figure import Figure

from seeking.report.figures import characters, families, plain, two_panels, widen
from seeking.report.metric import ACCURACY
from seeking.report.plots import draw, draw_arms, draw_evidence, how_easy
from seeking.training import Result

SCRIPTS = "Straße, данные, ελληνικά, עברית, عربي, हिन्दी, ไทย, 数据, データ, 한국어, 🐈"


def result(seed: int, models: tuple[str, ...] = ("base", "motivated"), rest: int = 0, always: bool = False) -> Result:
    """A run of 60 batches and 4 epochs, all of it near 98 %; the base rests on the first ones."""
    draws = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for step in range(60):
        losses = {"loss": 1 + draws.random()} if "base" in models and step >= rest else {}
        rows.append({"kind": "step", "step": step, **losses})
        if "motivated" in models and (always or not losses or losses["loss"] < 1.5):
            rows[-1]["motivated_loss"] = 1.2
        if step % 15 == 14:
            accuracies = {name: {"accuracy": 0.98 + 0.01 * draws.random()} for name in models}
            rows.append({"kind": "eval", "epoch": step // 15 + 1, **accuracies})
    metrics = {name: {"accuracy": 0.98} for name in models}
    return cast(Result, SimpleNamespace(metrics=metrics, rows=lambda: rows))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved."""
    saved: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *given, **more: saved.append(self))
    return saved


def texts(figure: Figure) -> str:
    legends = [legend for axes in figure.axes if (legend := axes.get_legend())]
    return "; ".join(text.get_text() for legend in legends for text in legend.get_texts())


def test_a_comparison_names_its_bands_and_begins_at_zero(figures: list[Figure], tmp_path: Path) -> None:
    alone = {"base": [result(2, ("base",))] * 2, "motivated": [result(3, ("motivated",))] * 2}
    draw({"pair": [result(0), result(1)], **alone}, tmp_path / "x.png", "a in b")
    assert all(axes.get_ylim()[0] == 0 for axes in figures[0].axes)
    for name in ("base, in the pair", "base, alone", "motivated, alone", "range of 2 seeds"):
        assert name in texts(figures[0])
    assert "the base's loss on them is" in texts(figures[0]) and "lower than around" in texts(figures[0])


def test_where_every_batch_was_motivated_nothing_is_told_of_motivated_batches(
    figures: list[Figure], tmp_path: Path
) -> None:
    draw({"pair": [result(0, rest=36, always=True)]}, tmp_path / "x.png", "a in b")
    training = figures[0].axes[0]
    assert [line.get_label() for line in training.get_lines()] == ["base", "motivated"]
    draw({"pair": [result(0)]}, tmp_path / "x.png", "a in b")
    base, motivated, ticks = (str(line.get_label()) for line in figures[1].axes[0].get_lines())
    assert (base, motivated) == ("base", "motivated, on motivated batches alone")
    assert ticks.startswith("motivated batches:")


@pytest.mark.parametrize(("rest", "epochs"), [(0, [1, 2, 3, 4]), (14, [1, 2, 3, 4]), (36, [3, 4]), (60, [])])
def test_the_base_is_evaluated_in_the_figure_from_its_first_step_on(
    rest: int, epochs: list[int], figures: list[Figure], tmp_path: Path
) -> None:
    draw({"pair": [result(0, rest=rest), result(1, rest=rest)]}, tmp_path / "x.png", "a in b")
    lines = {line.get_label(): np.asarray(line.get_xdata()).tolist() for line in figures[0].axes[1].get_lines()}
    assert lines.get("base", []) == epochs
    assert lines["motivated"] == [1, 2, 3, 4]


@pytest.mark.parametrize("models", [("base", "motivated"), ("base",), ("motivated",)])
def test_one_run_is_drawn_by_the_names_of_its_models(
    models: tuple[str, ...], figures: list[Figure], tmp_path: Path
) -> None:
    draw({"pair": [result(0, models)]}, tmp_path / "x.png", "a in b")
    legend = figures[0].axes[1].get_legend()
    assert legend and [text.get_text() for text in legend.get_texts()] == [*models]
    assert "pair" not in texts(figures[0]) and "seeds" not in texts(figures[0])


@pytest.mark.parametrize(("best", "label"), [("f1", "f1"), (None, "loss"), ("lost", "loss")])
def test_the_evaluation_is_drawn_by_the_best_metric(
    best: str | None, label: str, figures: list[Figure], tmp_path: Path
) -> None:
    metrics = {"base": {"loss": 0.5, "f1": 0.25}}
    rows: list[dict[str, Any]] = [{"kind": "eval", "epoch": epoch, **metrics} for epoch in (1, 2)]
    run = cast(Result, SimpleNamespace(metrics=metrics, rows=lambda: rows))
    draw({"pair": [run]}, tmp_path / "x.png", "a", best)
    (line,) = figures[0].axes[1].get_lines()
    assert figures[0].axes[1].get_ylabel() == label
    assert [*line.get_ydata()] == [metrics["base"][label]] * 2


def test_differences_of_hundredths_look_small(figures: list[Figure], tmp_path: Path) -> None:
    values = {"mean": 0.981, "interval": 0.0001, "values": [0.981, 0.9811]}
    draw_arms([{"arm": "a$b$", "base": values, "motivated": values}], "a$b$", tmp_path / "x.png", "title", ACCURACY)
    assert all(axes.get_xlim()[1] - axes.get_xlim()[0] >= 1.99 for axes in figures[0].axes)
    for name in ("one seed", "mean, 95 % confidence interval", r"mean of a\$b\$"):
        assert name in texts(figures[0])


@settings(max_examples=20)
@given(st.floats(0, 100), st.floats(0, 10), st.floats(0.1, 5))
def test_an_axis_spans_what_it_must(low: float, span: float, least: float) -> None:
    axes = Figure().subplots()
    axes.set_ylim(low, low + span + 1e-6)
    widen(axes.yaxis, least)
    bottom, top = axes.get_ylim()
    assert top - bottom >= least * (1 - 1e-9)
    assert bottom <= low and top >= low + span


@pytest.mark.slow
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=st.text(max_size=20) | st.just(SCRIPTS) | st.just("$a_{1 and $b"))
def test_any_title_is_drawn(title: str, tmp_path: Path) -> None:
    before = copy.deepcopy(dict(matplotlib.rcParams))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with two_panels(tmp_path / "x.png", title, 2.0) as (left, _):
            left.plot([1, 2], label=plain(title) or "x")
            left.legend()
    assert (tmp_path / "x.png").stat().st_size > 1000
    assert dict(matplotlib.rcParams) == before


def test_fonts_are_added_for_what_the_first_lacks() -> None:
    assert families("plain text") == [*matplotlib.rcParams["font.family"]]
    chosen = families(SCRIPTS)
    files = [font.fname for font in font_manager.fontManager.ttflist if font.name in chosen]
    default = font_manager.findfont(font_manager.FontProperties())
    wanted = {ord(character) for character in SCRIPTS if not character.isspace()}
    known = set().union(*(characters(font.fname, wanted) for font in font_manager.fontManager.ttflist))
    assert known <= set().union(*(characters(file, wanted) for file in [default, *files]))
    assert not any(name.startswith("Last") for name in chosen[:-1])


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.7, 1.0, 1.3]))
def testhow_easy_motivated_batches_are_is_told(seed: int, factor: float) -> None:
    generator = np.random.default_rng(seed)
    losses = np.linspace(3, 1, 400)
    motivated = np.sort(generator.choice(400, 100, replace=False))
    losses[motivated] *= factor
    word = {0.7: "lower than around", 1.0: "as on those around them", 1.3: "higher than around"}[factor]
    assert word in how_easy(np.arange(400), losses, motivated)
    assert how_easy(np.arange(400), losses, np.arange(400)) == ""


def test_the_legend_of_a_condition_names_every_third(figures: list[Figure], tmp_path: Path) -> None:
    """Also those in which the first arm had no motivated batch."""
    third = {"rate": 0.5, "loss": 0.9}
    evidence = [{"early": {"rate": 0.0}, "midway": third, "late": third}, dict.fromkeys(("early", "midway"), third)]
    rows = [{"arm": f"arm {number}", "budget": None, "evidence": held} for number, held in enumerate(evidence)]
    draw_evidence(rows, tmp_path / "x.png", "a in b")
    assert texts(figures[0]) == "early; midway; late"
