"""Held-out images: the same for all seeds, and each class keeps some."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seeking import SeekingError
from seeking.cli import main
from seeking.data import DataConfig, load
from seeking.data.hold_out import hold_out, keep_classes
from seeking.errors import RunWarning


@given(labels=st.lists(st.integers(-1, 6), min_size=2, max_size=40), data=st.data())
def test_each_class_keeps_some_and_nothing_else_changes(labels: list[int], data: st.DataObject) -> None:
    numbers = np.array(labels)
    order = np.array(data.draw(st.permutations(range(len(labels)))))
    count = data.draw(st.integers(1, len(labels) - 1))
    kept, held_out = keep_classes(numbers, order[count:], order[:count])
    assert sorted([*kept, *held_out]) == [*range(len(labels))]
    assert {*numbers[kept]} - {-1} == {*labels} - {-1}
    lost = {*labels} - {-1, *numbers[order[count:]]}
    assert np.setdiff1d(kept, order[count:]).size == len(lost), "one row of each lost class comes back"
    spare = max(np.bincount(numbers[kept] + 1, minlength=2)[1:]) > 1
    assert len(held_out) == count or not spare, "and another one takes its place"


@pytest.mark.parametrize(("share", "seed"), [(0.1, 0), (0.3, 1)])
def test_otherwise_the_rows_are_those_that_datasets_draws(share: float, seed: int) -> None:
    plain = datasets.Dataset.from_dict({"row": [*range(20)]}).train_test_split(test_size=share, seed=seed)
    for each_class in (False, True):
        parts = hold_out(np.zeros(20, int), share, seed, each_class=each_class)
        assert [part.tolist() for part in parts] == [plain["train"]["row"][:], plain["test"]["row"][:]]
    with pytest.warns(RunWarning, match="no class has images to spare"):
        assert len(hold_out(np.arange(20), share, seed, each_class=True)[1]) == 20 * share
    with pytest.raises(SeekingError, match=r"0\.9 of 2 images cannot be held out"):
        hold_out(np.zeros(2, int), 0.9, seed, each_class=True)


def rare(root: Path) -> str:
    """Ten images, one of each of six classes; with the seed of the held-out tenth a class would lose all of its."""
    root.mkdir()
    (row,) = hold_out(np.zeros(10, int), 0.1, 0, each_class=False)[1]
    labels = [0] * 10
    labels[row] = 1
    images = [Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)) for number in range(10)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows: Any = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    rows.to_parquet(root / "train.parquet")
    return str(root)


@pytest.mark.parametrize("validation", [None, 0.1])
def test_a_rare_class_is_trained_on(validation: float | None, tmp_path: Path) -> None:
    data = load(DataConfig(data=rare(tmp_path / "data"), validation=validation))
    assert {*data.train.labels.tolist()} == {0, 1}
    assert load(DataConfig(data=data.name, split_method="random")).train.labels.sum() == 0


@pytest.mark.parametrize("data", ["digits", "files"])
def test_images_held_out_for_conditions_leave_each_class_some(data: str, tmp_path: Path) -> None:
    name = rare(tmp_path / "data") if data == "files" else data
    whole = load(DataConfig(data=name))
    classes, most = len(whole.train.labels.unique()), len(whole.train) - len(whole.train.labels.unique())
    narrowed = load(DataConfig(data=name, held_out=most))
    assert narrowed.held_out and len(narrowed.held_out) == most
    assert len(narrowed.train) == len(narrowed.train.labels.unique()) == classes
    with pytest.raises(SeekingError, match=rf"held_out is {most + 1}, .* of which {most} can be held out"):
        load(DataConfig(data=name, held_out=most + 1))


def test_classes_that_a_subset_leaves_without_training_images_are_told() -> None:
    with pytest.warns(RunWarning, match=r"digits: 9 of the 10 classes of the test images have no images among the 1 "):
        load(DataConfig(max_train_samples=1))


@pytest.mark.slow
def test_runs_of_older_versions_keep_their_images(tmp_path: Path) -> None:
    command = ["train", "--data", rare(tmp_path / "data"), "--batch-size", "4", "--device", "cpu", "--no-verify"]
    output = ["--output", str(tmp_path / "run")]
    assert main([*command, "--epochs", "1", "--split-method", "random", *output]) == 0
    for path in [tmp_path / "run" / "config.json"]:  # An older version did not know the option.
        options = json.loads(path.read_text())
        assert options.pop("split_method") == "random"
        path.write_text(json.dumps(options))
    (tmp_path / "run" / "manifest.json").unlink()
    assert main(["train", "--resume", "--epochs", "2", *output]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["split_method"] == "random"
