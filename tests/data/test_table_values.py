"""Tables whose label is a value, not a class."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from users_tables import ROWS, load, write

from seeking import SeekingError
from seeking.cli import main
from seeking.data.table_columns import Preparation
from seeking.errors import RunWarning

VALUES = st.lists(st.integers(-1000, 1000), min_size=ROWS, max_size=ROWS).filter(lambda values: len({*values}) > 9)


@given(values=VALUES, factor=st.sampled_from([-3.0, 0.01, 1000.0]), offset=st.integers(-50, 50))
@settings(max_examples=25)
def test_values_are_learnt_alike_in_any_unit(
    values: list[int], factor: float, offset: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Scaled by the training rows; and back to the unit of the column by what the summary has."""
    folder = tmp_path_factory.mktemp("values")
    columns: list[dict[str, Any]] = [
        {"x": [n % 7 for n in range(ROWS)], "label": [scale * value + shift for value in values]}
        for scale, shift in ((1, 0), (factor, offset))
    ]
    original, scaled = (load(write(folder / f"{number}.csv", each), loss="mse") for number, each in enumerate(columns))
    sign = 1 if factor > 0 else -1
    for part in ("train", "test"):
        torch.testing.assert_close(
            getattr(original, part).labels, sign * getattr(scaled, part).labels, rtol=1e-4, atol=1e-4
        )
    labels = original.train.labels.double()
    assert abs(float(labels.mean())) < 1e-6 and float(labels.std()) == pytest.approx(1, abs=1e-6)
    target = Preparation.from_dict(json.loads(json.dumps(original.train.preparation))).target
    assert target
    learnt = [*original.train.labels.tolist(), *original.test.labels.tolist()]
    assert sorted(target.mean + target.deviation * value for value in learnt) == pytest.approx(sorted(values), abs=1e-2)
    assert scaled.deviation == pytest.approx(abs(factor) * original.deviation)
    assert original.model_arguments["num_classes"] == 1 and "values" in original.describe()
    assert {split.classes for split in original.splits} == {None}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["1", "", "3"] * 8, "column label, row 2 of a.csv: there is no value .of 8 of 24 rows."),
        (["1", "two", "3"] * 8, "row 2 of a.csv: 'two' is not a number, as loss mse needs.* loss to cross_entropy"),
        (["1", "inf", "3"] * 8, "row 2 of a.csv: 'inf' is not a number"),
        (["1", "1e99", "3"] * 8, "row 2 of a.csv: 1e.99 is infinite or too large"),
        (["7"] * ROWS, "all training rows have the value 7; there is nothing to learn"),
    ],
)
def test_what_is_no_value_is_named(targets: list[str], message: str, tmp_path: Path) -> None:
    rows = "".join(f"{number},{target}\n" for number, target in enumerate(targets))
    (tmp_path / "a.csv").write_text("x,label\n" + rows)
    with pytest.raises(SeekingError, match=message):
        load(tmp_path, loss="mse")


def test_whole_numbers_that_may_be_values_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n" + "".join(f"{n},{n % 60}\n" for n in range(200)))
    with pytest.warns(RunWarning, match="60 whole numbers, 0 to 59, count as classes; if .* values, set loss to mse"):
        load(tmp_path)
    load(tmp_path, loss="mse")


@pytest.mark.slow
def test_commands_learn_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table, the figure and the list of runs are by RMSE, in the unit of the column."""
    table, output = tmp_path / "a.csv", tmp_path / "out"
    table.write_text("age,price\n" + "".join(f"{n % 7},{1000.5 + 100 * (n % 7)}\n" for n in range(120)))
    models = ["--base", "mlp-4", "--motivated", "mlp-8", "--epochs", "4", "--batch-size", "8"]
    options = ["--task", "tabular", "--loss", "mse", "--label-column", "price", "--data", str(table), *models]
    assert main(["compare", *options, "--seeds", "2", "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "RMSE, 2 seeds" in shown and "RMSE base" in shown and (output / "comparison.png").exists()
    gains = json.loads((output / "comparison.json").read_text())["models"]
    assert gains["base"]["alone"]["mean"] < 200  # Of values that deviate by 200.
    summary = json.loads((output / "pair-seed0" / "summary.json").read_text())
    assert summary["best"]["base"]["rmse"] == pytest.approx(
        summary["preparation"]["target"]["deviation"] * summary["best"]["base"]["loss"] ** 0.5
    )
    rows = [json.loads(row) for row in (output / "pair-seed0" / "metrics.jsonl").read_text().splitlines()]
    every = [row["base"]["rmse"] for row in rows if row["kind"] == "eval"]
    assert summary["best"]["base"]["rmse"] == min(every)  # The lowest is best.
    assert main(["show", str(output)]) == 0
