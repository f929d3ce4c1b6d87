"""The results in the repository are as the code of now writes them."""

from pathlib import Path

import pytest

from seeking.experiments.parity import fronts
from seeking.experiments.recipe import read
from seeking.experiments.results import metric_of, summarize
from seeking.files import read_json
from seeking.report.experiment import page

FOLDERS = sorted(path.parent for path in (Path(__file__).parents[2] / "results").glob("*/results.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_tables_are_of_now(folder: Path) -> None:
    name, _, scale = folder.name.rpartition("-")
    results, recipe = read_json(folder / "results.json", 1 << 24), read(name, scale, {})
    metric = metric_of(recipe)
    rows = summarize(recipe, results["records"], metric)
    text = page(recipe.title, recipe.reference, rows, results["about"], metric, fronts(recipe, rows, metric))
    assert text == (folder / "results.md").read_text(encoding="utf-8"), (
        f"redraw it with: python benchmarks/redraw.py results/{folder.name}"
    )
