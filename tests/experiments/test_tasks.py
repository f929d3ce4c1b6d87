"""Tasks: the data, metrics and runs of images, text and tables."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tasks import GPT2, SMALL, TABLE, loaded, text_options

from seeking import SeekingError
from seeking.cli import main
from seeking.data import table
from seeking.data.config import DataConfig
from seeking.data.split_use import NOT_USED, SET_ASIDE
from seeking.experiments import RunConfig, models, trainer
from seeking.experiments import reproduce as reproducing
from seeking.experiments.recipe import read
from seeking.experiments.results import first_reaching
from seeking.experiments.tasks import task, tasks
from seeking.experiments.tasks.base import OF_ALL
from seeking.report import experiment
from seeking.report.metric import ACCURACY, BITS_PER_BYTE, LOSS, Metric, shown
from seeking.training import RunFolder
from seeking.training.objective import summarized

pytest.importorskip("transformers", reason="needs transformers: pip install 'seeking[transformers]'")


@pytest.mark.slow
@given(st.none() | st.floats(0.05, 0.5), st.none() | st.integers(1, 20), st.sampled_from(("images", "tabular")))
@settings(max_examples=15)
def test_each_image_or_row_is_in_the_table_of_splits_once(
    validation: float | None, held_out: int | None, kind: Any
) -> None:
    data = loaded(RunConfig(task=kind, data="digits", validation=validation, held_out=held_out))
    uses = {split.use: split.images for split in data.splits}
    assert sum(uses.values()) == 1797
    assert uses.get(SET_ASIDE) == held_out and (NOT_USED in uses) == (validation is not None)


@pytest.mark.filterwarnings("ignore:diabetes.* classes:seeking.errors.RunWarning")
@pytest.mark.parametrize("name", table.TABLES)
def test_tables_are_scaled_by_their_training_rows(name: str) -> None:
    config = RunConfig(**{**TABLE, "data": name}, task="tabular", validation=0.2, held_out=10)
    parts: Any = loaded(config)
    constant = parts.train.values.std(0) == 0
    torch.testing.assert_close(parts.train.values.mean(0), torch.zeros(len(constant)), rtol=0, atol=1e-4)
    torch.testing.assert_close(parts.train.values.std(0)[~constant], torch.ones(int((~constant).sum())))
    rest = loaded(dataclasses.replace(config, validation=None, held_out=None))
    whole = len(table.read_tables(config)[0]["train"])
    assert len(parts.train) + len(parts.test) + len(parts.held_out) == rest.train_samples == whole - round(whole * 0.2)


def test_what_tables_there_are() -> None:
    with pytest.raises(SeekingError, match=r"unknown data set 'whine'; did you mean wine"):
        loaded(RunConfig(**{**TABLE, "data": "whine"}, task="tabular"))


def configs(lyrics: Path) -> dict[str, RunConfig]:
    return {
        "images": RunConfig(**SMALL, max_train_samples=64, max_eval_samples=32, model_kwargs={"width": 4}),
        "text": RunConfig(**text_options(lyrics)),
        "tabular": RunConfig(**SMALL, task="tabular", **TABLE),
        "values": RunConfig(**SMALL, task="tabular", **{**TABLE, "data": "diabetes"}, loss="mse"),
    }


@pytest.mark.parametrize("name", ["images", "tabular", "text", "values"])
def test_models_and_objective_of_a_task_take_its_data(name: str, lyrics: Path) -> None:
    config = configs(lyrics)[name]
    data, (larger, smaller) = loaded(config), (1.0, 0.5)
    assert sorted(tasks()) == ["images", "tabular", "text"]
    assert "training" in data.describe()
    assert {split.use for split in data.splits} >= {"training", "test"}
    both = models(config, data.model_arguments)
    batch = next(iter(data.loaders(config).train))
    assert len(batch[0]) == config.batch_size
    assert data.example.shape == (2, *batch[0].shape[1:])
    assert data.example.dtype == batch[0].dtype
    objective = data.taught(config, larger, 1.0)
    for model in both.values():
        logits = objective.logits(model, batch)
        metrics = objective.evaluate(model, batch)
        measured = summarized(objective, dict.fromkeys(metrics, 1.0))
        assert sorted(task(config.task).measured[config.loss]) == sorted(measured)
        assert task(config.task).metric(config.loss).name in measured
        torch.testing.assert_close(objective.loss(model, batch), metrics["loss"].mean().float())
        (taught,) = torch.autograd.grad(objective.loss_of_logits(logits, batch, logits.detach()), [logits])
        assert taught.abs().max() < 1e-6  # It has nothing to learn from itself.
    half = data.taught(config, smaller, 1.0)
    teacher = objective.logits(both["motivated"], batch).detach()
    parts = [float(each.loss(both["base"], batch, teacher).detach()) for each in (objective, half)]
    alone = float(objective.loss(both["base"], batch).detach())
    assert parts[1] == pytest.approx(smaller * alone + (1 - smaller) * parts[0], rel=1e-4)


@given(
    st.sampled_from([ACCURACY, BITS_PER_BYTE, LOSS]), st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0, 1)
)
def test_what_is_as_good_is_found_whichever_way_is_better(metric: Metric, values: list[float], target: float) -> None:
    first = first_reaching([[n, 10.0 * n, value] for n, value in enumerate(values)], target, metric)
    reached = [value >= target if metric.higher_is_better else value <= target for value in values]
    assert first == ((reached.index(True), 10.0 * reached.index(True)) if any(reached) else None)
    assert max([None, *values], key=metric.goodness) == (max if metric.higher_is_better else min)(values)


def test_the_metric_that_models_are_told_by() -> None:
    assert shown([{"loss": 1.0, "accuracy": 0.5}] * 2) is ACCURACY
    assert shown([{"loss": 1.0, "bits_per_byte": 0.5}] * 2) is BITS_PER_BYTE
    assert shown([{"loss": 1.0, "accuracy": 0.5}, {"loss": 1.0}]) is LOSS
    assert shown([]) is LOSS
    assert (ACCURACY.text(0.51234), BITS_PER_BYTE.text(1.98765)) == ("51.23%", "1.988")
    assert (ACCURACY.number(-1e-9, "+"), BITS_PER_BYTE.label) == ("+0.00", "bits per byte")


class Stop(Exception): ...


@pytest.mark.slow
def test_a_run_on_text_that_was_stopped_ends_as_if_it_had_not_been(lyrics: Path, tmp_path: Path) -> None:
    config = RunConfig(**text_options(lyrics, update="joint", condition="always", one_pass=True))

    def run(folder: str, *listeners: Any) -> Any:
        return trainer(config, loaded(config), output=RunFolder(tmp_path / folder, resume=True), listeners=listeners)

    def stop(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == 5:
            raise Stop

    with pytest.raises(Stop):
        run("stopped", stop).fit()
    whole, resumed = run("whole").fit(), run("stopped").fit()
    assert list(resumed.rows()) == list(whole.rows())
    assert whole.metrics["motivated"]["bits_per_byte"] < 8
    assert whole.cost.one_pass_samples == whole.cost.run_samples == 128


TINY: dict[str, Any] = {
    "title": "Small",
    "reference": "ordinary",
    "arms": {
        "ordinary": {"method": "ordinary"},
        "paper": {"search": {"lr": [0.0001, 0.01]}},
        "growth": {"method": "growth"},
        "distillation": {"method": "distillation"},
    },
}


@pytest.mark.slow
def test_a_search_and_its_results_are_by_bits_per_byte(lyrics: Path, tmp_path: Path) -> None:
    options = {name: value for name, value in text_options(lyrics).items() if name not in GPT2}
    content = {**TINY, "options": {**options, "max_train_samples": 32, "max_eval_samples": 16}}
    content["scales"] = {"quick": {"pairs": [[*GPT2.values()]]}}
    recipe_file = tmp_path / "words.yaml"
    recipe_file.write_text(json.dumps(content))
    root = tmp_path / "out"
    page = reproducing.reproduce(read(str(recipe_file), "quick", {}), root, range(1), 1, lambda name, row: None)
    assert "Bits per byte (lower is better)" in page
    chosen = json.loads((root / "search.json").read_text())
    assert chosen["paper"]["best"] == {"lr": 0.01}  # Which learns more.
    results = json.loads((root / "results.json").read_text())
    for record in results["records"]:
        for model in ("base", "motivated"):
            values = [json.loads((root / run / "summary.json").read_text())["metrics"] for run in record["runs"]]
            assert record[model] in [of[model]["bits_per_byte"] for of in values if model in of]
            assert 1 < record[model] < 8
    assert (root / "gpt2-1x32-gpt2-2x32.png").exists()
    assert experiment.page("x", "ordinary", results["rows"], {}, ACCURACY) != page


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tabular", "text"])
def test_the_recipe_runs(name: str, lyrics: Path, tmp_path: Path) -> None:
    table = tmp_path / "wine.csv"
    rows = [f"{n % 7},{n % 5},{'red' if n % 3 else 'white'}" for n in range(160)]
    table.write_text("\n".join(["acid,sugar,colour", *rows]))
    data = str(lyrics if name == "text" else table)
    few = [
        "epochs=2",
        "eval_every=2",
        "verify=false",
        *(["max_train_samples=32", "max_eval_samples=16"] if name == "text" else ["label_column=colour"]),
    ]
    arguments = ["reproduce", name, "--seeds", "1", "--jobs", "1", "--data", data, "--output", str(tmp_path / "out")]
    assert main([*arguments, "--set", *few]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["arm"] for row in results["rows"]} >= {"ordinary", "paper", "best, budget 1.0"}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "compare"])
def test_commands_train_language_models(
    command: str, lyrics: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = text_options(lyrics, epochs=1)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if name != "verify"]
    arguments += ["--seeds=1"] if command == "compare" else []
    assert main([command, *arguments, "--output", str(tmp_path / "run")]) == 0
    told = capsys.readouterr()
    assert "bits per byte" in told.out
    if command == "train":
        assert main([command, "--output", str(tmp_path / "run"), "--resume"]) == 0


@pytest.mark.parametrize("name", tasks())
def test_options_that_a_task_does_not_use_are_told(name: str) -> None:
    """Whatever is not used is told of, and nothing else; of included data, what says where data are, too."""
    fields = {field.name: field for field in dataclasses.fields(DataConfig)}
    assert OF_ALL.union(*(each.options for each in tasks().values())) == fields.keys()
    changed: dict[str, Any] = {"subset": "a", "flip": True, "sequence_length": 7, "category_columns": ("a",)}
    read = mock.Mock()
    kind = dataclasses.replace(tasks()[name], read=read)
    for option, value in changed.items():
        for data in ("folder", kind.included[0]):
            used = option in kind.options and (data == "folder" or option != "subset")
            with warnings.catch_warnings(record=True) as caught:
                kind.load(DataConfig(data=data, **{option: value}), 1, "cross_entropy")
            place = f" with data {data}" if option in kind.options else ""
            told = [] if used else [f"{option} is not used by task {name}{place}"]
            assert [str(warning.message) for warning in caught] == told
    assert read.call_count == 2 * len(changed)
