"""What is wrong in a recipe, or on the command line of ``seeking reproduce``, is told."""

from pathlib import Path
from typing import Any

import pytest
from small_recipes import TINY, quietly, tiny

from seeking import SeekingError
from seeking.cli import main
from seeking.experiments.recipe import read
from seeking.experiments.reproduce import reproduce

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_no_figures_of_experiments")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablatio"], "unknown recipe 'ablatio'; did you mean ablation"),
        (["ablation", "--scale", "large"], "unknown scale of recipe ablation 'large'; known: full, quick, small"),
        (["cifar100-vit", "--data", "digits"], "recipe cifar100-vit needs data with 100 classes, digits has 10"),
        (["pareto", "--data", "digits", "--set", "warmup_epochs=3"], "warmup_epochs is 3.0 of 2 epochs"),
        (["ablation", "--set", "epoch=3"], "epoch'; did you mean epochs"),
        (["ablation", "--seeds", "0"], "seeds is 0"),
        (["pareto", "--set", "epochs=3"], "recipe pareto sets epochs itself"),
        (["ablation", "--scale", "small", "--set", "lr=3"], "recipe ablation sets lr itself"),
        (["ablation", "--source", "digits"], "recipe ablation has no pretraining, whose data --source names"),
        (["ablation", "--data", "digits", "--output", "/dev/null/x"], "cannot be used as an output folder"),
        (["ablation", "--jobs", "0", "--data", "digits"], "jobs is 0"),
        (["ablation", "--data", "digits", "--set", "optimizer=adamv"], "unknown optimizer 'adamv'; did you mean"),
        (
            ["ablation", "--data", "digits", "--set", "base_condition=evry:2"],
            "base_condition: unknown condition 'evry'",
        ),
        (["nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"x": {"method": "magic"}}, "reference": "x"}, "unknown method of x in recipe tiny 'magic'"),
        ({"reference": "nobody"}, "unknown reference in .* 'nobody'"),
        ({"arm": {}}, "unknown key in .* 'arm'; did you mean arms"),
        ({"arms": [1]}, r"arms is \[1\]; it must be a mapping of names to options"),
        ({"scales": {}}, r"scales is {}; name at least one, such as `scales: {quick: {}}`"),
        ({"scales": {"quick": {"pairs": []}}}, r"pairs is \[\]; it must be a list of lists of two models"),
        ({"scales": {"quick": {"pairs": ["resnet8", "resnet14"]}}}, "pairs is .*'resnet8', 'resnet14'.*; it must be"),
        (
            {"scales": {"quick": {"pairs": [["resnet8", "resnet14"]], "seeds": "three"}}},
            "seeds is 'three'; it must be a whole number",
        ),
        ({"without": "growth"}, "without is 'growth'; it must be a list of names of arms"),
        ({"without": ["grwth"]}, "unknown arm in without of .* 'grwth'; did you mean growth"),
        ({"options": {"seed": 3}}, "options: seed cannot be set here; models go by pairs, the rest by --seeds"),
        ({"arms": {"ordinary": {"method": "ordinary"}, "x": {"base": "resnet20"}}}, "x: base cannot be set here"),
        ({"search": {"seed": [0, 1]}}, "ordinary: search: seed cannot be set here"),
        ({"search": {"lr": 0.1}}, r"search: lr is 0.1; it must be a list of values"),
        ({"search": {"lr": []}}, r"search: lr is \[\]; it must be a list of values"),
        ({"arms": {}}, r"arms is {}; name at least one"),
        ({"jobs": "two"}, "jobs is 'two'; it must be a whole number"),
        ({"classes": "ten"}, "classes is 'ten'; it must be a whole number"),
        ({"pretraining": [1]}, r"pretraining is \[1\]; it must be a mapping of options to values"),
        ({"budgets": [1, "two"]}, r"budgets is \[1, 'two'\]; it must be a list of numbers above 0"),
        ({"budgets": [0]}, r"budgets is \[0\]; it must be a list of numbers above 0"),
        (
            {"scales": {"quick": TINY["scales"]["by-cost"]}, "arms": {"ordinary": {"max-steps": 3}}},
            "ordinary: max_steps cannot be set where budgets say how long a run is",
        ),
        ({"arms": {"ordinary": {"method": "ordinary", "each": {"bse": {"lr": 0.2}}}}}, "each 'bse'; did you mean base"),
        ({"arms": {"ordinary": {"each": {"base": {"lr": 0.2}}}}}, "unknown run of motivated in .*each 'base'"),
        ({"search": {"rl": [0.1]}}, "unknown option in .*'rl'"),
        ({"scales": {"quick": {}}}, "a recipe needs pairs; add it, at the top or in the scale quick"),
        ({"scales": {"quick": 5}}, "scale quick is 5; it must be a mapping"),
        ({"options": {"temperature": 2}}, "unknown option in .*'temperature'"),
        ({"options": {"recipe": "bset"}}, "unknown recipe 'bset'; did you mean best"),
        ({"options": {"recipe": ["best"]}}, r"recipe is \['best'\]; give the name of one"),
        ({"options": {"recipe": 3}}, "recipe is 3; give the name of one"),
        (
            {"search": {"lr": [0.1]}, "arms": {"ordinary": {"method": "ordinary", "each": {"base": {"lr": 0.2}}}}},
            "ordinary: lr is both set by each and searched",
        ),
        ({"pretraining": {"epochs": 1}}, "growth cannot be combined with pretraining"),
    ],
)
def test_a_file_that_is_no_recipe(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match=message):
        read(tiny(tmp_path, **changes), "quick", {})


@pytest.mark.parametrize(
    ("pair", "arm", "message"),
    [
        (["resnet14", "resnet8"], {}, r"^resnet14 in resnet8: layer1: the base has 2 blocks"),
        (["resnet8", "resnet14"], {"condition": "alway"}, r"^arms/x/resnet8-resnet14/seed0: .* 'alway'; did you mean"),
        (["resnet8", "resnet14"], {"start_from": ["base=gone.pt"]}, r"^arms/x/resnet8-resnet14/seed0: gone.pt: cannot"),
        (
            ["resnet8", "resnet14"],
            {"pretrained": True},
            r"^arms/x/.*: both models start from weights .base",
        ),
        (["resnet8", "resnet14", {"base_kwargs": {"width": 8}}], {}, r"^arms/x/resnet8-resnet14/seed0: .*is smaller"),
    ],
)
def test_what_cannot_be_trained_is_named(pair: list[Any], arm: dict[str, Any], message: str, tmp_path: Path) -> None:
    scales = {"quick": {"pairs": [pair]}}
    recipe = read(tiny(tmp_path, arms={"x": arm}, reference="x", scales=scales), "quick", {})
    with pytest.raises(SeekingError, match=message):
        reproduce(recipe, tmp_path / "out", range(1), 1, quietly)
    assert not [*tmp_path.glob("out/arms/*")]


def test_runs_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    recipe = read(tiny(tmp_path, arms={"n < 1": {}, "n > 1": {"lr": 0.1}}, reference="n < 1"), "quick", {})
    with pytest.raises(SeekingError, match="two different runs of this recipe have the folder arms/n-1/"):
        reproduce(recipe, tmp_path / "out", range(1), 1, quietly)
    assert not (tmp_path / "out").exists()
