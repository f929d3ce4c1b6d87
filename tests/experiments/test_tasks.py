"""Tasks: images, text and tables in runs and experiments."""

import contextlib
import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import seeking.models
from seeking import NotContainedError, SeekingError
from seeking.cli import main
from seeking.data import table, text
from seeking.data.config import DataConfig
from seeking.data.split_use import NOT_USED, SET_ASIDE
from seeking.data.text import Windows, python_sources, read_text
from seeking.experiments import RunConfig, models, trainer
from seeking.experiments import reproduce as reproducing
from seeking.experiments.recipe import read
from seeking.experiments.results import first_reaching
from seeking.experiments.run import check_names
from seeking.experiments.tasks import TaskData, task, tasks
from seeking.experiments.tasks.base import OF_ALL
from seeking.models import check_arguments, create, task_of
from seeking.report import experiment
from seeking.report.metric import ACCURACY, BITS_PER_BYTE, LOSS, Metric, shown
from seeking.training import RunFolder, count_flops
from seeking.training.next_byte import NextByte
from seeking.training.objective import summarized

pytest.importorskip("transformers", reason="needs transformers: pip install 'seeking[transformers]'")

GPT2: dict[str, Any] = {"base": "gpt2-1x32", "motivated": "gpt2-2x32"}
TABLE: dict[str, Any] = {"base": "mlp-4", "motivated": "mlp-8", "data": "wine", "batch_size": 16}
SMALL: dict[str, Any] = {"optimizer": "adamw", "lr": 0.01, "epochs": 2, "precision": "no", "verify": False}


@pytest.fixture(scope="module")
def lyrics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lyrics.txt"
    path.write_text("".join(f"{n} green bottles hanging on the wall, ünd sö fort\n" for n in range(200, 0, -1)))
    return path


def text_options(path: Path, **changes: Any) -> dict[str, Any]:
    some = {"sequence_length": 16, "max_train_samples": 64, "max_eval_samples": 32, "batch_size": 16}
    return {"task": "text", "data": str(path), **GPT2, **SMALL, **some, **changes}


def loaded(config: RunConfig) -> TaskData:
    return task(config.task).load(config, 1, config.loss)


TEXTS = st.binary(min_size=2, max_size=400).map(lambda content: torch.tensor([*content], dtype=torch.uint8))


@given(TEXTS, st.integers(1, 60), st.integers(1, 40), st.none() | st.integers(0, 9), st.integers(0, 3))
@settings(max_examples=60)
def test_targets_are_the_bytes_that_follow(
    content: Tensor, length: int, count: int, seed: int | None, epoch: int
) -> None:
    if len(content) <= length:
        with pytest.raises(SeekingError, match=rf"{len(content)} bytes is too short for a window of {length}"):
            Windows(content, length, count, seed)
        return
    windows = Windows(content, length, count, seed)
    windows.set_epoch(epoch)
    order = torch.randperm(len(windows)).tolist()
    inputs, targets = windows.__getitems__(order)
    assert inputs.shape == targets.shape == (len(windows), length)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    every = {tuple(content[start : start + length + 1].tolist()) for start in range(len(content) - length)}
    for row, index in enumerate(order):
        window = (*inputs[row].tolist(), int(targets[row, -1]))
        assert window in every
        item = windows[index]  # In whatever order and company.
        assert torch.equal(item[0], inputs[row]) and torch.equal(item[1], targets[row])
    if seed is None and count > 1:
        starts = windows._starts
        assert (starts.diff() >= length).all()  # No byte is measured twice.


def test_windows_lie_elsewhere_in_each_epoch_and_for_each_seed() -> None:
    content = torch.randint(256, (5000,), dtype=torch.uint8)

    def starts(seed: int, epoch: int) -> list[int]:
        windows = Windows(content, 8, 100, seed)
        windows.set_epoch(epoch)
        return windows._starts.tolist()

    assert starts(1, 2) == starts(1, 2)
    assert len({tuple(starts(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@given(st.none() | st.floats(0.05, 0.5), st.none() | st.integers(1, 5), st.integers(1, 30))
@settings(max_examples=25)
def test_parts_of_a_text_have_nothing_in_common(
    lyrics: Path, validation: float | None, held_out: int | None, length: int
) -> None:
    config = RunConfig(
        task="text", data=str(lyrics), validation=validation, held_out=held_out, sequence_length=length, **GPT2
    )
    data: Any = loaded(config)
    whole = read_text(str(lyrics))
    parts = [data.train, *([data.held_out] if held_out else []), data.test]
    assert torch.equal(torch.cat(parts), whole[: sum(map(len, parts))])
    assert len(whole) - sum(map(len, parts)) == (round(len(whole) * 0.1) if validation else 0)  # The test part.
    aside = data.loaders(config).held_out
    assert (len(aside.dataset) if aside else None) == held_out
    uses = {split.use: split.source for split in data.splits}
    assert uses.keys() == {"training", "test"} | ({SET_ASIDE} if held_out else set()) | (
        {NOT_USED} if validation else set()
    )
    assert sum(int(source.removesuffix(" bytes").replace(",", "")) for source in uses.values()) == len(whole)


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


@pytest.mark.slow
@given(st.data())
@settings(max_examples=25)
def test_a_model_for_other_data_names_the_task(data: st.DataObject) -> None:
    names = {"images": ["resnet8", "vit_tiny_patch16_224"], "text": ["gpt2-1x32", "llama-2x64"], "tabular": ["mlp-16"]}
    kinds = sorted(names)
    kind, base, motivated = (data.draw(st.sampled_from(kinds)) for _ in range(3))
    models = [data.draw(st.sampled_from(names[each])) for each in (base, motivated)]
    config = RunConfig(task=kind, base=models[0], motivated=models[1])
    wrong = [(name, each) for name, each in zip(models, (base, motivated), strict=True) if each != kind]
    if not wrong:
        with contextlib.suppress(NotContainedError):  # Of one task, but perhaps of two families.
            check_names(config)
        return
    with pytest.raises(
        SeekingError, match=f"{wrong[0][0]} is a model of task {wrong[0][1]}.* the task is {kind}; give task"
    ):
        check_names(config)


@pytest.mark.slow
def test_pythons_sources_are_on_board(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = python_sources()
    assert len(paths) > 100
    assert paths == python_sources()
    assert not [path for path in paths if "site-packages" in path.parts]
    monkeypatch.setattr(text, "python_sources", lambda: paths[:3])
    assert bytes(read_text("python").tolist()) == b"".join(path.read_bytes() for path in paths[:3])


def test_a_text_that_cannot_be_read_or_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match=r"nowhere.txt: cannot be read .* give the path of a text, or python"):
        read_text(str(tmp_path / "nowhere.txt"))
    with pytest.raises(SeekingError, match="a folder, not a file"):
        read_text(str(tmp_path))
    (tmp_path / "short.txt").write_text("a" * 300)
    with pytest.raises(SeekingError, match="the test part has 30 bytes, of which a window needs 257"):
        loaded(RunConfig(task="text", data=str(tmp_path / "short.txt"), **GPT2))
    with pytest.raises(SeekingError, match="a smaller sequence_length or held_out"):
        loaded(RunConfig(task="text", data=str(tmp_path / "short.txt"), sequence_length=8, held_out=100, **GPT2))


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


def test_a_model_that_knows_nothing_needs_eight_bits() -> None:
    batch = torch.randint(256, (3, 7)), torch.randint(256, (3, 7))
    metrics = NextByte().evaluate(lambda inputs: torch.zeros(*inputs.shape, 256), batch)  # type: ignore[arg-type]
    torch.testing.assert_close(metrics["bits_per_byte"], torch.full((3,), 8.0))
    assert NextByte().is_better({"loss": 1.0}, {"loss": math.nan})
    assert not NextByte().is_better({"loss": 1.0}, {"loss": 1.0})


@pytest.mark.parametrize("name", ["gpt2-2x64", "llama-2x64"])
def test_attention_costs_the_same_by_whatever_kernel(name: str) -> None:
    tokens = torch.randint(256, (2, 16))
    counts = {
        kernel: count_flops(
            create(name, num_classes=256, sequence_length=16, attn_implementation=kernel),
            lambda model, inputs: model(inputs).logits.sum(),
            tokens,
        )
        for kernel in ("eager", "sdpa")
    }
    assert counts["eager"] == counts["sdpa"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("gpt2-1x33", {"sequence_length": 8}, "the width is 33; it must be a multiple of 32"),
        ("llama-1x32", {"sequence_length": 8}, "the width is 32; it must be a multiple of 64"),
        ("gpt2-1x32", {"in_chans": 3}, "model gpt2-1x32 rejects the arguments num_classes=256, in_chans=3"),
        ("mlp-3", {"sequence_length": 8}, "model mlp-3 rejects the arguments"),
        ("mlp-3", {"in_features": 2, "pretrained": True}, "there are no pretrained weights of mlp-3"),
    ],
)
def test_models_that_there_are_not(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        create(name, num_classes=256, **arguments)


MADE = {
    "resnet8": ({"num_classes": 10, "in_chans": 1}, ["width", "depth"]),
    "vit_tiny_patch16_224": ({"num_classes": 10, "in_chans": 1}, ["num_heads", "depth", "patchsize"]),
    "gpt2-1x32": ({"num_classes": 256, "sequence_length": 8}, ["n_inner", "n_head", "in_chans"]),
    "mlp-3": ({"num_classes": 3, "in_features": 7}, ["depth", "num_classes", "width"]),
}


@pytest.mark.slow
@given(st.data())
@settings(max_examples=25)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_arguments_are_refused_without_data_if_and_only_if_they_are_with_data(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(MADE)))
    known, keys = MADE[name]
    values = st.integers(-1, 2) | st.sampled_from(["a", None, 2.5])
    given = data.draw(st.dictionaries(st.sampled_from(keys), values, max_size=2))
    config = RunConfig(task=task_of(name), base=name, motivated=name, base_kwargs=given, sequence_length=8)
    try:
        create(name, **{**known, **given})
    except SeekingError:
        with pytest.raises(SeekingError):
            check_names(config)
    else:
        check_names(config)


def test_a_model_that_needs_memory_to_be_made_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def net(*, num_classes: int, scale: float = 1.0) -> nn.Module:
        return nn.Linear(2, num_classes * int((torch.ones(1) * scale).item()))

    monkeypatch.setattr(seeking.models, "_own", lambda name: net)
    check_arguments("net", {"scale": 2.0}, {"num_classes": 2})
    with pytest.raises(SeekingError, match="model net rejects the arguments scale='a': "):
        check_arguments("net", {"scale": "a"}, {"num_classes": 2})


@pytest.mark.parametrize(
    "arguments", [["gpt2-1x32", "gpt2-3x32"], ["llama-1x64", "llama-1x128"], ["mlp-4", "mlp-8", "--in-chans", "5"]]
)
def test_maps_of_models_for_text_and_tables_are_proven(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *arguments]) == 0
    assert main(["map", *arguments]) == 0
    told = capsys.readouterr().out
    assert "exact" in told
    assert ("prefix pair" in told) == arguments[0].startswith("gpt2")


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


@pytest.mark.parametrize("name", ["gpt2-1x32", "llama-1x64"])
def test_a_misspelled_option_of_a_language_model_is_told(name: str) -> None:
    with pytest.raises(SeekingError, match=r"unknown option of .*'initialiser_range'; did you mean initializer_range"):
        create(name, num_classes=8, sequence_length=4, initialiser_range=0.1)
    assert create(name, num_classes=8, sequence_length=4, initializer_range=0.1).config.initializer_range == 0.1
    options = {"attn_implementation": "eager", **({"rope_theta": 500.0} if "llama" in name else {"n_inner": 48})}
    create(name, num_classes=8, sequence_length=4, **options)


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
