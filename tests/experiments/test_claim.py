"""Whose folder of results it is: of which recipe, and of one program at a time."""

import contextlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_recipes import SOME_OPTIONS, TINY, claim, tiny

from seeking import SeekingError
from seeking.experiments.claim import claim as claimed
from seeking.experiments.recipe import Recipe, read

pytestmark = pytest.mark.slow


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    recipe = read(tiny(tmp_path), "quick", {})
    root = tmp_path / "out"
    root.mkdir()
    (root / "mine.txt").write_text("mine")
    with pytest.raises(SeekingError, match="does not hold the results of a recipe"):
        claim(recipe, root)
    assert [path.name for path in root.iterdir()] == ["mine.txt"]
    (root / "mine.txt").rename(root / "recipe.json")
    for mine, why in (("mine", "not JSON"), ('{"soup": 1}', "does not hold the results of a recipe")):
        (root / "recipe.json").write_text(mine)
        with pytest.raises(SeekingError, match=why):
            claim(recipe, root)
        assert (root / "recipe.json").read_text() == mine
    (root / "recipe.json").unlink()
    claim(read(tiny(tmp_path), "quick", {"lr": 0.3}), root)
    claim(recipe, root)  # Nothing has begun.
    before = (root / "recipe.json").read_text()
    assert "0.05" in before
    (root / "arms").mkdir()
    with pytest.raises(SeekingError, match=r"another recipe:\n  options: lr: 0.05 in the folder, 0.3 now\nName"):
        claim(read(tiny(tmp_path), "quick", {"lr": 0.3}), root)
    with pytest.raises(SeekingError, match=r"scale: 'quick' in the folder, 'by-cost' now"):
        claim(read(tiny(tmp_path), "by-cost", {}), root)
    (root / "recipe.json").write_text(before.replace('"format": 2', '"format": 1'))
    with pytest.raises(SeekingError, match="format: 1 in the folder, 2 now"):
        claim(recipe, root)
    assert sorted(path.name for path in root.iterdir()) == [".lock", "arms", "recipe.json"]


def test_an_experiment_is_run_by_one_program_at_a_time(tmp_path: Path) -> None:
    recipe, root = read(tiny(tmp_path), "quick", {}), tmp_path / "out"
    with claimed(recipe, root), pytest.raises(SeekingError, match="another program is running an experiment"):
        claim(recipe, root)
    claim(recipe, root)


@pytest.mark.parametrize("place", ["options", "arms"])
def test_an_experiment_records_the_options_of_a_training_recipe(place: str, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    by_recipe = {"recipe": str(own)}
    changes: dict[str, Any] = {"reference": "x", "arms": {"x": by_recipe if place == "arms" else {}}}
    changes |= {"options": by_recipe} if place == "options" else {}
    root = tmp_path / "out"
    own.write_text("condition: always\n")
    claim(read(tiny(tmp_path, **changes), "quick", {}), root)
    recorded = json.loads((root / "recipe.json").read_text())
    resolved = recorded["options"] if place == "options" else recorded["arms"]["x"]
    assert resolved["recipe"] == {"condition": "always"}
    (root / "arms").mkdir()
    claim(read(tiny(tmp_path, **changes), "quick", {}), root)
    own.write_text("condition: never\n")
    with pytest.raises(
        SeekingError, match=r"another recipe:\n.*: recipe: condition: 'always' in the folder, 'never' now"
    ):
        claim(read(tiny(tmp_path, **changes), "quick", {}), root)


def test_arms_and_pairs_may_be_added_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "out"
    scales = {"quick": {**TINY["scales"]["quick"]}}

    def with_arms(*, of_all: Mapping[str, Any] = {}, pairs: int = 1, **arms: dict[str, Any]) -> Recipe:
        scales["quick"]["pairs"] = [["resnet8", "resnet14"], ["resnet8", "resnet20"]][:pairs]
        options = {**TINY["options"], **of_all}
        arms = {"ordinary": TINY["arms"]["ordinary"], **arms}
        return read(tiny(tmp_path, arms=arms, options=options, scales=scales), "quick", {})

    claim(with_arms(a={}), root)
    (root / "arms").mkdir()
    claim(with_arms(a={}, b={"condition": "every:2"}, of_all={"workers": 1}), root)
    recorded = json.loads((root / "recipe.json").read_text())
    assert list(recorded["arms"]) == ["ordinary", "a", "b"]
    assert recorded["options"]["workers"] == 1
    claim(with_arms(a={}, b={"condition": "every:2"}, pairs=2), root)
    with pytest.raises(
        SeekingError, match=r"another recipe:\n  arms: b: {'condition': 'every:2'} in the folder, None now\nName"
    ):
        claim(with_arms(a={}, pairs=2), root)
    for other in (
        with_arms(a={}, b={"condition": "every:2"}),
        with_arms(a={}, b={"condition": "every:3"}, pairs=2),
        with_arms(a={}, b={"condition": "every:2"}, c={}, pairs=2, of_all={"lr": 0.3}),
    ):
        with pytest.raises(SeekingError, match="another recipe"):
            claim(other, root)


@settings(max_examples=15)
@given(st.sampled_from(["options", "pairs", "arms"]), SOME_OPTIONS.filter(bool), st.booleans())
def test_a_recipe_written_in_another_way_goes_on(place: str, moved: dict[str, Any], changed: bool) -> None:
    """The same options of the same runs, whether they are those of all runs, of the pair or of the arm."""

    def written(place: str, options: dict[str, Any], folder: Path) -> Recipe:
        given = {name: options if name == place else {} for name in ("options", "pairs", "arms")}
        scales = {"quick": {"pairs": [["resnet8", "resnet14", given["pairs"]]]}}
        return read(
            tiny(folder, options=given["options"], arms={"x": given["arms"]}, reference="x", scales=scales), "quick", {}
        )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        claim(written("arms", moved, folder), folder / "out")
        (folder / "out" / "arms").mkdir()
        again = written(place, {**moved, **({"lr": 0.3} if changed else {})}, folder)
        with pytest.raises(SeekingError, match="another recipe") if changed else contextlib.nullcontext():
            claim(again, folder / "out")
