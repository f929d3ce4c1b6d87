import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from seeking import SeekingError
from seeking.experiments.parity import common_name, cost_of_parity, fronts
from seeking.experiments.recipe import Recipe, read
from seeking.experiments.results import summarize
from seeking.report.experiment import page
from seeking.report.metric import ACCURACY, BITS_PER_BYTE
from seeking.report.plots import draw_front

PAIR = ["resnet8", "resnet14"]
BUDGETS = ["0.7", "0.85", "1.0"]
LEVEL = st.floats(-1, 0)
POINTS = st.lists(
    st.tuples(st.integers(10, 150).map(lambda cost: cost / 100), st.floats(-5, 5)),
    min_size=1,
    max_size=6,
    unique_by=lambda point: point[0],
)


def recipe(folder: Path, **changes: Any) -> Recipe:
    arms = {"ordinary": {"method": "ordinary"}, "paper": {}}
    arms |= {f"best, budget {budget}": {"recipe": "best", "budget": float(budget)} for budget in BUDGETS}
    content = {"title": "x", "reference": "ordinary", "arms": arms, "scales": {"quick": {"pairs": [PAIR]}}, **changes}
    (folder / "own.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read(str(folder / "own.yaml"), "quick", {})


def record(arm: str, seed: int, flops: float, base: float, motivated: float) -> dict[str, Any]:
    curves: dict[str, Any] = {"base_curve": [], "motivated_curve": []}
    return {
        **{"arm": arm, "pair": PAIR, "budget": None, "seed": seed, "flops": flops, "seconds": 1.0},
        **{"base": base, "motivated": motivated, **curves},
    }


def records(sign: float, seeds: int = 3) -> list[dict[str, Any]]:
    """The base is as good as its twin throughout; the motivated model gains a point for each tenth of the FLOPs."""
    rows = []
    for seed in range(seeds):
        noise = 0.001 * seed
        rows += [record("ordinary", seed, 100.0, 0.7 + noise, 0.8 + noise)]
        rows += [record("paper", seed, 43.0, 0.7 + noise, 0.8 - sign * 0.02 + noise)]
        for number, flops in enumerate((48.0, 58.0, 68.0)):
            gain = sign * (0.001 * (seed - 1) - 0.01 * (1 - number))
            rows += [record(f"best, budget {BUDGETS[number]}", seed, flops, 0.7 + noise, 0.8 + noise + gain)]
    return rows


@given(POINTS, LEVEL)
def test_parity_is_the_least_cost_at_which_the_line_through_the_points_is_level(
    points: list[tuple[float, float]], level: float
) -> None:
    parity = cost_of_parity(points, level)
    costs, margins = zip(*sorted(points), strict=True)
    if parity is None:
        assert max(margins) < level
        return
    assert costs[0] <= parity <= costs[-1]
    assert np.interp(parity, costs, margins) >= level - 1e-6
    cheaper = np.linspace(costs[0], parity, 50)[:-1] if parity > costs[0] else []
    assert all(np.interp(cost, costs, margins) < level + 1e-6 for cost in cheaper)


@given(POINTS, LEVEL, st.floats(0.1, 10), st.floats(0, 3), st.randoms())
def test_parity_in_any_order_and_unit_and_never_later_for_better_models(
    points: list[tuple[float, float]], level: float, unit: float, better: float, random: Any
) -> None:
    parity = cost_of_parity(points, level)
    shuffled = random.sample(points, len(points))
    assert cost_of_parity(shuffled, level) == parity
    scaled = cost_of_parity([(unit * cost, margin) for cost, margin in points], level)
    assert scaled == (None if parity is None else pytest.approx(unit * parity))
    improved = cost_of_parity([(cost, margin + better) for cost, margin in points], level)
    assert parity is None or (improved is not None and improved <= parity + 1e-9)


@given(POINTS, LEVEL, st.floats(0, 1))
def test_a_budget_between_two_others_changes_nothing_where_the_line_is_right(
    points: list[tuple[float, float]], level: float, share: float
) -> None:
    costs, margins = zip(*sorted(points), strict=True)
    cost = costs[0] + share * (costs[-1] - costs[0])
    parity = cost_of_parity([*points, (cost, float(np.interp(cost, costs, margins)))], level)
    before = cost_of_parity(points, level)
    assert (
        parity == (None if before is None else pytest.approx(before, abs=1e-6))
        or min(abs(margin - level) for margin in margins) < 1e-6
    )


def test_a_diverged_run_has_no_line_to_the_next() -> None:
    assert cost_of_parity([(0.5, float("nan")), (0.6, 1.0)], 0) == 0.6
    assert cost_of_parity([(0.5, float("-inf")), (0.6, 1.0)], 0) == 0.6
    assert cost_of_parity([], 0) is None


@pytest.mark.parametrize(("metric", "sign"), [(ACCURACY, 1.0), (BITS_PER_BYTE, -1.0)])
def test_arms_that_differ_in_their_budget_are_one_front(metric: Any, sign: float, tmp_path: Path) -> None:
    experiment = recipe(tmp_path)
    rows = summarize(experiment, records(sign), metric)
    paper, best = fronts(experiment, rows, metric)
    assert (paper["name"], paper["arms"], paper["parity"]) == ("paper", ["paper"], None)
    assert (best["name"], best["costs"]) == ("best", pytest.approx([0.48, 0.58, 0.68]))
    assert best["arms"] == [f"best, budget {budget}" for budget in BUDGETS]
    half_width = rows[-1]["motivated_gain"]["interval"] * metric.scale
    expected = [metric.scale * gain - half_width for gain in (-0.01, 0.0, 0.01)]
    expected = [min(margin, 0.0) for margin in expected]  # The base is level with an interval of no width.
    assert best["margins"] == pytest.approx(expected)
    assert best["parity"] == pytest.approx(np.interp(-metric.level, expected, best["costs"]))
    text = page("x", "ordinary", rows, {}, metric, [paper, best])
    assert f"| best | {best['parity']:.2f} |" in text
    assert "| paper | none up to 0.43 |" in text
    assert (
        "lower end" if sign > 0 else "upper end"
    ) in text and f"0.48: {sign * expected[0]:+.{metric.digits}f}" in text


def test_shorter_ordinary_training_is_a_front_of_its_own(tmp_path: Path) -> None:
    arms: dict[str, Any] = {"ordinary": {"method": "ordinary"}}
    arms |= {f"ordinary, {share}": {"method": "ordinary", "length": share} for share in (0.5, 0.7)}
    experiment, rows = recipe(tmp_path, arms=arms, options={"epochs": 30}), []
    for (arm, settings), loss in zip(arms.items(), (0.0, 0.02, 0.01), strict=True):
        share = settings.get("length", 1.0)
        for seed in range(2):
            trial = experiment.trial(arm, PAIR, None, seed, 2.0)
            assert [run.config.epochs for run in trial.runs] == [round(30 * share)] * 2
            rows.append(record(arm, seed, 100 * share, 0.7 + 0.01 * seed - loss, 0.8 - loss))
    (front,) = fronts(experiment, summarize(experiment, rows, ACCURACY), ACCURACY)
    assert (front["costs"], front["margins"]) == (pytest.approx([0.5, 0.7]), pytest.approx([-2.0, -1.0]))


@pytest.mark.parametrize("length", [0, -1, float("inf"), float("nan"), "0.5", True, [0.5], None])
def test_a_length_that_is_none_is_refused_by_name(length: Any, tmp_path: Path) -> None:
    arms = {"ordinary": {"method": "ordinary"}, "short": {"method": "ordinary", "length": length}}
    with pytest.raises(SeekingError, match=r"own.yaml: short: length is .*; give a share of the epochs above 0"):
        recipe(tmp_path, arms=arms)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"budgets": [10]}, "short: length cannot be set where budgets"), ({"search": {"length": [0.5]}}, "set it")],
)
def test_a_length_that_would_have_no_effect_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    arms = {"ordinary": {"method": "ordinary"}, "short": {"method": "ordinary", "length": 0.5}}
    with pytest.raises(SeekingError, match=message):
        recipe(tmp_path, arms=arms, **changes)


def test_a_length_counts_steps_where_they_say_how_long_a_run_is(tmp_path: Path) -> None:
    arms = {"ordinary": {"method": "ordinary"}, "short": {"method": "ordinary", "length": 0.25}}
    trial = recipe(tmp_path, arms=arms, options={"max_steps": 40}).trial("short", PAIR, None, 0, 2.0)
    assert [run.config.max_steps for run in trial.runs] == [10, 10]


def test_without_flops_there_is_no_cost(tmp_path: Path) -> None:
    experiment = recipe(tmp_path)
    rows = summarize(experiment, [{**row, "flops": 0.0} for row in records(1.0)], ACCURACY)
    assert fronts(experiment, rows, ACCURACY) == []


def test_searched_options_may_differ_and_others_may_not(tmp_path: Path) -> None:
    experiment = recipe(tmp_path, search={"lr": [0.1, 0.2]})
    rows = summarize(experiment, records(1.0), ACCURACY)
    for arm, lr in zip(experiment.arms, itertools.cycle([0.1, 0.2])):
        experiment.arms[arm]["lr"] = lr  # type: ignore[index]
    assert len(fronts(experiment, rows, ACCURACY)) == 2
    experiment.arms["best, budget 1.0"]["finish"] = "tied"  # type: ignore[index]
    assert sorted(len(front["arms"]) for front in fronts(experiment, rows, ACCURACY)) == [1, 1, 2]


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_figure_names_each_method_with_its_cost_of_parity(
    seeds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *given, **more: saved.append(self))
    experiment = recipe(tmp_path)
    rows = summarize(experiment, records(1.0, seeds), ACCURACY)
    draw_front(fronts(experiment, rows, ACCURACY), rows, "ordinary", tmp_path / "x.png", "title", ACCURACY)
    legend = saved[0].axes[1].get_legend()
    texts = [text.get_text() for text in legend.get_texts()] if legend else []
    assert texts[1:] == [
        "ordinary: 1.00",
        *(
            ["paper: needs two seeds", "best: needs two seeds"]
            if seeds == 1
            else ["paper: none up to 0.43", f"best: {fronts(experiment, rows, ACCURACY)[1]['parity']:.2f}"]
        ),
    ]


def test_one_seed_has_no_interval_and_no_parity(tmp_path: Path) -> None:
    experiment = recipe(tmp_path)
    rows = summarize(experiment, records(1.0, seeds=1), ACCURACY)
    both = fronts(experiment, rows, ACCURACY)
    assert [front["parity"] for front in both] == [None, None]
    assert "| best | needs two seeds | 0.48, 0.58, 0.68 |" in page("x", "ordinary", rows, {}, ACCURACY, both)


def test_parity_is_with_twins_alone(tmp_path: Path) -> None:
    experiment = recipe(tmp_path, reference="paper")
    assert fronts(experiment, summarize(experiment, records(1.0), ACCURACY), ACCURACY) == []
    experiment = recipe(tmp_path, budgets=[10])
    assert fronts(experiment, [], ACCURACY) == []


@pytest.mark.parametrize(
    ("arms", "name"),
    [
        (("best, budget 0.7", "best, budget 1.0"), "best"),
        (("best, budget 1.0", "best, budget 1.2"), "best"),
        (("best, budget 1.0", "best"), "best"),
        (("ordinary, 0.5 of the epochs", "ordinary, 0.7 of the epochs"), "ordinary, of the epochs"),
        (("n = 1 (0.7)", "n = 1 (0.9)"), "n = 1"),
        (("0.7", "0.9"), "0.7, 0.9"),
        (("budget 0.7", "budget 1.0"), "budget 0.7, budget 1.0"),
        (("taught, budget 1",), "taught, budget 1"),
    ],
)
def test_a_front_has_what_the_names_of_its_arms_have_in_common(arms: tuple[str, ...], name: str) -> None:
    assert common_name(arms) == name
