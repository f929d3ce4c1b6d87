"""Which rows of a table are trained and tested on: of files, of saved data sets and of the hub."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from users_tables import GOOD, WITHOUT_CLASSES, load

from seeking import SeekingError
from seeking.experiments.config import RunConfig
from seeking.experiments.tasks import task


@pytest.mark.parametrize(
    ("files", "options", "used"),
    [
        (["a"], {}, {"training": 13, "test": 3}),
        (["train", "test"], {}, {"training": 16, "test": 16}),
        (["train", "val"], {}, {"training": 16, "test": 16}),
        (["train", "test"], {"validation": 0.25}, {"training": 12, "test": 4, "not used": 16}),
        (["train", "unlabelled test"], {}, {"training": 13, "test": 3, "not used": 16}),
        (["train", "test"], {"held_out": 5}, {"training": 11, "test": 16, "held out for conditions": 5}),
        (["one", "two"], {"train_split": "two.csv", "test_split": "one.csv"}, {"training": 16, "test": 16}),
        (["train", "test"], {"max_train_samples": 9, "max_eval_samples": 2}, {"training": 9, "test": 2}),
    ],
)
def test_which_rows_are_trained_and_tested_on(
    files: list[str], options: dict[str, Any], used: dict[str, int], tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / f"{name}.csv").write_text(WITHOUT_CLASSES if "unlabelled" in name else GOOD)
    data = load(tmp_path, **options)
    assert {split.use: split.images for split in data.splits} == used
    first, second = (load(tmp_path, **options, seed=seed) for seed in (0, 1))
    assert torch.equal(first.train.values, second.train.values)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            ["train", "unlabelled"],
            {"test_split": "unlabelled.csv"},
            "unlabelled.csv has no classes .column label",
        ),
        (["a", "b"], {"train_split": "c.csv"}, "unknown train_split of .*'c.csv'; did you mean"),
        (["a"], {"train_split": "a.csv", "test_split": "a.csv"}, "have a file in common"),
        (["a"], {"test_split": "a.csv"}, "its only training file is chosen as test_split"),
    ],
)
def test_splits_that_there_are_not(files: list[str], options: dict[str, Any], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / f"{name}.csv").write_text(WITHOUT_CLASSES if "unlabelled" in name else GOOD)
    with pytest.raises(SeekingError, match=message):
        load(tmp_path, **options)


def test_splits_by_name_and_as_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes go by their names, in whatever format the data set was; rows are named by their split."""
    features = datasets.Features({"x": datasets.Value("float32"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"x": [float(n) for n in range(10)], "label": [n % 2 for n in range(9)] + [-1]}
    whole = datasets.Dataset.from_dict(rows, features=features)
    splits = {"training": whole.select(range(9)), "dev": whole.select(range(4)), "unlabelled": whole.select([9, 9])}
    held = datasets.DatasetDict(splits).with_format("numpy", columns=["x"])
    held.save_to_disk(tmp_path / "saved")
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset: held.with_format(None))
    for name in (str(tmp_path / "saved"), "someone/table"):
        data = load(name)
        assert data.train.classes == ("no", "yes")
        uses = [(split.use, split.source, split.images) for split in data.splits]
        assert uses == [("training", "rows of training", 9), ("test", "rows of dev", 4), ("not used", "unlabelled", 2)]
        assert {split.use: split.source for split in load(name, test_split="training", train_split="dev").splits} == {
            "training": "rows of dev",
            "test": "rows of training",
            "not used": "unlabelled",
        }
        with pytest.raises(SeekingError, match=f"column label, row 1 of unlabelled of {name}: there is no class"):
            load(name, train_split="unlabelled")
        with pytest.raises(SeekingError, match=f"unknown .*_split of {name} 'devil'; did you mean dev"):
            load(name, train_split="devil")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "someone/table",
            "someone/table: no such folder in .*, and the hub cannot be reached .*; check the network",
        ),
        ("table", "data set table: no such folder in .*, and the hub cannot be reached"),
        ("wines", "unknown data set 'wines'; did you mean wine"),
        ("", "data is empty; give the name of a table, a file or a folder"),
        ("./somewhere", "data set ./somewhere: no such folder"),
    ],
)
def test_the_hub_out_of_reach_is_told(name: str, message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        load(name)


@pytest.mark.parametrize("kind", ["images", "tabular", "text"])
@pytest.mark.parametrize("name", ["~nobody-of-this-name/data", "~nobody-of-this-name/data.csv", "~/nowhere.csv"])
def test_the_home_folder_of_nobody_is_no_traceback(kind: Any, name: str) -> None:
    config = RunConfig(task=kind, data=name)
    with pytest.raises(SeekingError, match=f"{name}: (no such|cannot be read)"):
        task(kind).load(config, 1, config.loss)


def test_a_subset_of_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for one of the hub: a folder with several configurations, as ``datasets`` reads both."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "several"
    card = "---\nconfigs:\n"
    for name in ("small", "larger"):
        (folder / name).mkdir(parents=True)
        for split, count in (("train", len(name)), ("test", 2)):
            rows = "".join(f"{n}.5,{n % 2}\n" for n in range(count))
            (folder / name / f"{split}.csv").write_text(f"x,label\n{rows}")
        card += f"- config_name: {name}\n  data_dir: {name}\n"
    (folder / "README.md").write_text(card + "---\n")
    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset: real(str(folder), subset))
    for subset in ("small", "larger"):
        uses = [(split.use, split.images) for split in load("someone/several", subset=subset).splits]
        assert uses == [("training", len(subset)), ("test", 2)]
    with pytest.raises(SeekingError, match=r"available configs: \['small', 'larger'\]; name one with subset"):
        load("someone/several")
    with pytest.raises(SeekingError, match=r"'smal' not found. Available: .*; name one with subset"):
        load("someone/several", subset="smal")
    with pytest.raises(SeekingError, match=r"subset is small, but .*several is on this machine"):
        load(str(folder), subset="small")
