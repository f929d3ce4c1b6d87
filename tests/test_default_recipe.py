"""What a run on the command line starts from where no recipe is named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeking import TrainConfig
from seeking.cli import flags_of_files, main
from seeking.commands import Compare, RunOptions, Train
from seeking.option_parsing import parse_options
from seeking.options import DEFAULT_RECIPE, naming_default_recipe, recipe_options

TABLE = ["--task", "tabular", "--data", "wine", "--base", "mlp-4", "--motivated", "mlp-8", "--device", "cpu"]
SHORT = [*TABLE, "--epochs", "2", "--no-verify"]
COMMANDS = pytest.mark.parametrize("command", [Train, Compare])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def options(command: type[RunOptions], *given: str, file: str = "") -> RunOptions:
    """The options of a command line, with a file of options if there is any text for it."""
    Path("options.yaml").write_text(file)
    args = [*(["--config", "options.yaml"] if file else []), *given]
    return parse_options(command, args, "seeking", flags_of_files(args, command)[0])


def recorded(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "config.json").read_text())
    return content


@COMMANDS
def test_a_run_starts_from_the_recipe_best(command: type[RunOptions]) -> None:
    assert options(command) == options(command, "--recipe", "best")
    assert options(command).recipe == DEFAULT_RECIPE == "best"
    assert recipe_options("best").items() <= options(command).recorded().items()
    assert options(command, "--finish-at", "0.7", file="lr: 0.3").lr == 0.3, "as flags and files override it"
    assert (TrainConfig().condition, TrainConfig().finish) == ("decrease:2", "tied"), "Python has the plain defaults"


@COMMANDS
@pytest.mark.parametrize(
    ("given", "file"),
    [
        (["--recipe", "None"], ""),
        (["--recipe=None", "--lr", "0.1"], ""),
        (["--recipe", "None"], "recipe: best"),
        ([], "recipe: null"),
        ([], "recipe: None"),
        (["--condition", "always"], ""),
        (["--condition=always"], ""),
        (["--base-condition", "every:2"], ""),
        (["--base_condition", "every:2"], ""),
        (["--base-condition=every:2"], ""),
        ([], "condition: always"),
        ([], "base-condition: every:2"),
        ([], "base_condition: every:2"),
    ],
)
def test_it_starts_from_the_plain_defaults_if_the_user_says_so_or_who_steps_when(
    command: type[RunOptions], given: list[str], file: str
) -> None:
    started = options(command, *given, file=file)
    assert (started.recipe, started.finish, started.teach, started.schedule) == (None, "tied", 0.0, "cosine")


@COMMANDS
def test_another_recipe_takes_its_place(command: type[RunOptions]) -> None:
    assert options(command, file="recipe: paper") == options(command, "--recipe", "paper", file="recipe: best")
    assert options(command, "--recipe", "paper").condition == "decrease:2"
    assert options(command, "--recipe", "best", "--condition", "always").finish == "private"


@pytest.mark.parametrize(
    ("given", "start"),
    [
        ([], "recipe best; base_condition after:0.6, condition affordable, 2 epochs"),
        (["--recipe", "paper"], "recipe paper; condition decrease:2, 2 epochs"),
        (["--recipe", "None"], "no recipe; condition decrease:2, 2 epochs"),
        (["--condition", "every:3"], "no recipe; condition every:3, 2 epochs"),
    ],
)
def test_a_resumed_run_has_its_own_options_whatever_it_started_from(
    given: list[str], start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line that has begun it serves to resume it, and so does a shorter one."""
    assert main(["train", *SHORT, *given, "--resume", "--output", "out"]) == 0, "there is no run yet"
    assert start in " ".join(capsys.readouterr().out.split())
    begun = recorded("out")
    assert begun["recipe"] == {"recipe best": "best", "recipe paper": "paper"}.get(start.partition(";")[0])
    assert main(["train", *SHORT, *given, "--resume", "--output", "out", "--epochs", "3"]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", "--output", "out", "--epochs", "4"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert start.partition("; ")[2].replace("2 epochs", "4 epochs") in told
    assert "options of the run that is resumed; " in told
    changed = {"recipe", "resume", "epochs", "output", "device"}
    assert {name for name, value in recorded("out").items() if begun[name] != value} <= changed


def test_a_run_of_an_older_version_is_resumed_as_it_was() -> None:
    """It knew no recipes, nor who rests."""
    assert main(["train", *SHORT, "--recipe", "None", "--output", "out"]) == 0
    options = recorded("out")
    for name in (*recipe_options("best").keys() - {"condition", "schedule"}, "recipe", "budget"):
        del options[name]
    Path("out/config.json").write_text(json.dumps(options))
    Path("out/manifest.json").unlink()
    assert main(["train", "--resume", "--output", "out", "--epochs", "3"]) == 0
    assert (recorded("out")["condition"], recorded("out")["finish"]) == ("decrease:2", "tied")


@pytest.mark.slow
def test_a_comparison_starts_from_it_and_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    for resumed in (False, True):
        given = [] if resumed else [*SHORT, "--seeds", "1"]
        assert main(["compare", *given, "--resume", "--output", "out"]) == 0
        start = "options of the run that is resumed" if resumed else "recipe best"
        assert f"{start}; base_condition after:0.6" in " ".join(capsys.readouterr().out.split())
        assert recorded("out")["base_condition"] == "after:0.6"


def test_the_record_of_a_run_is_a_file_of_options_and_a_recipe() -> None:
    assert main(["train", *SHORT, "--output", "out"]) == 0
    for flag in ("--config", "--recipe"):
        again = options(Train, flag, "out/config.json").recorded()
        assert {name for name, value in recorded("out").items() if again[name] != value} <= {
            "recipe",
            "output",
            "config",
        }


WHERE = (
    r" (is|are) of the recipe best, which is the default: give another one, such as --recipe paper, or a --condition$"
)


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("--extra neutral", "--shared-from motivated"),
        ("--shard", "--finish private"),
        ("--optimizer-state shared", "--finish private"),
        ("--start-from base --base resnet18 --motivated resnet34", "--shared-from motivated"),
        ("--budget 0.01", "--base-condition after:0.6"),
    ],
)
def test_an_error_about_options_that_nobody_has_given_tells_where_they_come_from(
    command: str, given: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = given.split()
    models = [] if "--base" in words else SHORT
    assert main([command, *models, *words]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(f"; {named}{WHERE}", told), told
    assert main([command, *models, *words, "--recipe", "best"]) == 2
    assert "the default" not in capsys.readouterr().err, "it was asked for"


@pytest.mark.parametrize(
    "given", [["--data", "./nowhere"], ["--epochs", "0"], ["--base", "resnet9"], ["--schedule=cosine", "--lr=-1"]]
)
def test_other_errors_are_as_they_were(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *given]) == 2
    assert "recipe" not in capsys.readouterr().err


@given(st.text(), st.sampled_from(["finish", "teach", "decay"]), st.sampled_from(["tied", "0.55", "0.2", "private"]))
def test_only_a_value_of_the_recipe_is_named(text: str, name: str, value: str) -> None:
    of_default = recipe_options("best")
    named = f"; {name} {value} is of the recipe best"
    message = f"{name} is {value}: {name}"
    assert (named in naming_default_recipe(message, of_default)) == (str(of_default[name]) == value)
    assert naming_default_recipe(text, {}) == text


def test_whose_weights_both_models_share_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SHORT, "--output", "first"]) == 0
    capsys.readouterr()
    weights = [f"{model}=first/{model}.last.safetensors" for model in ("base", "motivated")]
    assert main(["train", *SHORT, "--start-from", *weights, "--output", "second"]) == 0
    assert "recipe best, shared weights from the motivated model; " in " ".join(capsys.readouterr().out.split())


@COMMANDS
@pytest.mark.parametrize("given", [[], ["--recipe", "paper"], ["--config", "some.yaml"], ["--condition", "random:0.5"]])
def test_help_shows_the_defaults_that_hold(
    command: type[RunOptions], given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("some.yaml").write_text("budget: 0.8\nfinish_at: 0.3\ntracker: [tensorboard]")
    of_files = vars(parse_options(command, flags_of_files(given, command)[0], "seeking"))
    with pytest.raises(SystemExit) as stopped:
        main([command.__name__.lower(), *given, "--help"])
    assert stopped.value.code == 0
    texts = re.split(r"\n[│ ] --", capsys.readouterr().out)[1:]
    shown = {re.split(r"[ ,]", text)[0].replace("-", "_"): " ".join(text.replace("│", "").split()) for text in texts}
    for name in ("condition", "base_condition", "finish", "finish_at", "budget", "teach", "schedule", "recipe", "lr"):
        value = of_files[name]
        assert (f"(default: {value})" in shown[name].replace("'", "")) == (value is not None), (name, shown[name])
