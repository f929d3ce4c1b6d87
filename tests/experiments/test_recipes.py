"""The runs that a recipe plans, and the options that they get."""

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from small_recipes import SOME_OPTIONS, tiny

from seeking.cli import flags_of_files, main
from seeking.commands import Train
from seeking.experiments import parallel
from seeking.experiments import recipe as recipes
from seeking.experiments.methods import methods
from seeking.experiments.recipe import Recipe, names, read
from seeking.option_parsing import parse_options

pytestmark = pytest.mark.slow


@given(
    st.sampled_from(sorted(methods())),
    st.floats(1.2, 4.0),
    st.floats(10, 60),
    st.floats(0.2, 0.8),
)
@settings(max_examples=40)
def test_every_method_spends_the_budget(method: str, ratio: float, budget: float, share: float) -> None:
    method_settings = {"share": share} if "share" in methods()[method].settings else {}
    recipe = Recipe(
        "x", "x", "x", None, (("resnet8", "resnet14"),), {}, {}, {"arm": {"method": method, **method_settings}},
        "arm", 1, (), {}, {}, None,
    )  # fmt: skip
    trial = recipe.trial("arm", ("resnet8", "resnet14"), budget, 0, ratio)
    # FLOPs of an epoch, those of the larger model alone being 1.
    flops = {
        "pair": 1 / ratio + 1 / 6,
        "sandwich": 1 / ratio + 1,
        "base": 1 / ratio,
        "motivated": 1,
        "grown": 1,
        "distilled": 1 / ratio + 1 / 3,
    }
    spent = sum(run.config.epochs * flops[run.stage.name] for run in trial.runs)
    assert spent == pytest.approx(budget, abs=0.501 * max(flops[run.stage.name] for run in trial.runs))
    for number, run in enumerate(trial.runs):
        assert run.after is None or run.after in [before.folder for before in trial.runs[:number]]


@pytest.mark.parametrize("name", names())
def test_recipes_can_be_planned_at_every_scale(name: str) -> None:
    content = yaml.safe_load((Path(recipes.__file__).parent / "recipes" / f"{name}.yaml").read_text())
    assert {"quick", "small", "full"} <= content["scales"].keys()
    for scale in content["scales"]:
        recipe = read(name, scale, {})
        assert recipe.seeds >= 3
        trials = [*recipe.trials(range(2), {pair: 1.5 + n for n, pair in enumerate(recipe.pairs)})]
        assert len(trials) == len(recipe.pairs) * len(recipe.arms) * 2 * max(1, len(recipe.budgets))
        folders: dict[str, Any] = {}
        for trial in trials:
            for run in trial.runs:  # What is shared is the same.
                assert folders.setdefault(run.folder, run) == run


def test_the_help_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    words = set(re.findall(r"[\w-]+", capsys.readouterr().out))
    assert {*names()} <= words


def test_the_docs_name_every_key_of_a_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.split("## Custom recipes")[1].split("\n## ")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {*Recipe.__dataclass_fields__, "scales", "without"} - {"name", "scale", "of_pairs"}


@pytest.mark.parametrize("before", [{}, {"pretraining": {"epochs": 1}}])
def test_pairs_that_have_a_model_in_common(before: dict[str, Any], tmp_path: Path) -> None:
    """Trained alone it is one run, unless the pair decides how."""
    pairs = [["resnet8", "resnet14", {} if before else {"lr": 0.1}], ["resnet8", "resnet20"], ["resnet8", "resnet32"]]
    arms = {"ordinary": {"method": "ordinary"}}
    recipe = read(tiny(tmp_path, arms=arms, scales={"quick": {"pairs": pairs}}, **before), "quick", {})
    runs = parallel.runs_by_folder(recipe.trials(range(1), dict.fromkeys(recipe.pairs, 2.0)))
    assert len([run for run in runs.values() if run.stage.name == "base"]) == (3 if before else 2)


def test_two_widths_of_one_model_are_two_runs(tmp_path: Path) -> None:
    arms, scales = {"ordinary": {"method": "ordinary"}}, {"quick": {"pairs": [["resnet8", "resnet8"]]}}
    name = tiny(tmp_path, arms=arms, scales=scales, options={"motivated_kwargs": {"width": 24}})
    recipe = read(name, "quick", {})
    runs = parallel.runs_by_folder(recipe.trials([0], dict.fromkeys(recipe.pairs, 2.0)))
    assert [run.stage.name for run in runs.values()] == ["base", "motivated"]


WITH_RECIPE = st.tuples(st.sampled_from([{}, {"recipe": "best"}, {"recipe": "paper"}]), SOME_OPTIONS).map(
    lambda parts: {**parts[0], **parts[1]}
)


@given(WITH_RECIPE, WITH_RECIPE, SOME_OPTIONS)
@settings(max_examples=30)
def test_an_arm_with_a_training_recipe_is_the_run_of_the_command_line(
    shared: dict[str, Any], arm: dict[str, Any], pair: dict[str, Any]
) -> None:
    """The recipe's options under all others, wherever these are given; an experiment has no default recipe."""
    explicit = {"recipe": None, **shared, **pair, **arm}
    with tempfile.TemporaryDirectory() as folder:
        scales = {"quick": {"pairs": [["resnet8", "resnet14", pair]]}}
        path = tiny(Path(folder), options=shared, arms={"x": arm}, reference="x", scales=scales)
        recipe = read(path, "quick", {})
        config = Path(folder) / "config.yaml"
        config.write_text(yaml.safe_dump(explicit))
        args = ["--config", str(config)]
        of_files, _ = flags_of_files(args, Train)
    expected = parse_options(Train, args, "seeking train", of_files).recorded()
    (run,) = recipe.trial("x", ("resnet8", "resnet14"), None, 0, 2.0).runs
    assert run.config.recorded().items() <= expected.items()


@pytest.mark.parametrize("written", ["1e-3", 0.001])
def test_options_of_one_run_of_an_arm_are_read_as_all_others(written: Any, tmp_path: Path) -> None:
    """YAML takes 1e-3 for text."""
    arms = {"ordinary": {"method": "ordinary", "each": {"base": {"lr": written, "weight-decay": 0}}}}
    recipe = read(tiny(tmp_path, arms=arms), "quick", {})
    base, motivated = (run.config for run in recipe.trial("ordinary", recipe.pairs[0], None, 0, 2.0).runs)
    assert (base.lr, base.weight_decay, motivated.lr) == (0.001, 0.0, 0.05)
