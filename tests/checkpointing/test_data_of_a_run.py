"""A run is resumed on the data that it was trained on, wherever they lie."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset as Table
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import image_folder
from tiny import TINY, tiny
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from seeking import SeekingError
from seeking.checkpointing.fingerprint import SAMPLE, decoded_otherwise, differences, of_dataset
from seeking.cli import main
from seeking.data import DataConfig, load
from seeking.training import RunFolder


def data(count: int = 16, seed: int = 1) -> TensorDataset:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, 0] > 0).long())


def resume(output: Path, dataset: Any, **options: Any) -> int:
    loaders = {"train_loader": DataLoader(dataset, 4), "eval_loader": DataLoader(data(), 16)}
    config = dataclasses.replace(TINY, epochs=3, **options)
    return tiny(RunFolder(output, resume=True), config, resume=True, **loaders).fit().cost.batches


@pytest.mark.slow
def test_other_data_are_refused_unless_accepted(tmp_path: Path) -> None:
    tiny(tmp_path / "run").fit()
    for other, message in ((data(20), "count: 16 in the run, 20 now"), (data(seed=2), "tensor 0, sample")):
        with pytest.raises(SeekingError, match=f"(?s)not those that it was trained on.*{message}"):
            resume(tmp_path / "run", other)
    assert resume(tmp_path / "run", data(seed=2), accept_changed_data=True) == 12
    with pytest.raises(SeekingError, match="not those that it was trained on"):
        resume(tmp_path / "run", data())


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(data())


class Augmented(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        raise AssertionError("an item was loaded")


@given(
    count=st.integers(1, 3 * SAMPLE),
    dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.uint8, torch.int64, torch.bool, torch.complex64)),
    row=st.integers(0, 200),
)
def test_fingerprints_tell_contents(count: int, dtype: torch.dtype, row: int) -> None:
    x = torch.zeros(count, 2, 2).to(dtype)
    known = of_dataset(Augmented(x))
    assert known == of_dataset(Augmented(x.clone()))
    assert not differences({"a": known}, {"a": known})
    changed = x.clone()
    changed[min(row, count - 1) if count <= SAMPLE else -1] = 1
    assert differences({"a": known}, {"a": of_dataset(Augmented(changed))})
    assert differences({"a": known}, {"a": of_dataset(Augmented(torch.zeros(count + 1, 2, 2).to(dtype)))})


def test_fingerprints_of_all_kinds_of_data_sets() -> None:
    assert of_dataset(Stream()) == {}
    assert of_dataset([object(), None]).keys() == {"count", "sample"} and of_dataset([]) == {"count": 0}
    parts = torch.utils.data.random_split(data(), [0.5, 0.5], torch.Generator().manual_seed(0))
    assert isinstance(parts[0], Subset) and of_dataset(parts[0]) != of_dataset(parts[1])
    assert of_dataset(ConcatDataset(parts)) == {str(number): of_dataset(part) for number, part in enumerate(parts)}
    for hostile in (None, 3, [], {"training data": 3}, {"training data": {"count": {}}}):
        differences(hostile, {"training data": of_dataset(data())})


class Labelled(Dataset[Any]):
    """Labels in a list, as the data sets of torchvision have them."""

    def __init__(self, labels: list[int]) -> None:
        self.targets = labels

    def __len__(self) -> int:
        return len(self.targets)


def batches(numbers: list[int]) -> list[Any]:
    return [{"x": (torch.tensor([float(number), 0.0]), np.array(0)), "y": 3} for number in numbers]


def table(numbers: list[int]) -> Any:
    data = Table.from_dict({"image": [{"bytes": b"ab", "path": f"/{id(numbers)}/{n}"} for n in numbers], "y": numbers})
    return data.with_transform(lambda rows: pytest.fail("an item was made"))


HOLDERS: dict[str, Callable[[list[int]], Any]] = {
    "a list of numbers": list,
    "a list of texts": lambda numbers: [(str(number), 0) for number in numbers],
    "a list of batches": batches,
    "a list of labels": Labelled,
    "a table": table,
    "a part of a table": lambda numbers: Subset(table(numbers), range(len(numbers))),
}


@pytest.mark.parametrize("holder", HOLDERS)
@given(numbers=st.lists(st.integers(0, 9), min_size=1, max_size=SAMPLE), place=st.integers(0, SAMPLE))
@settings(max_examples=20)
def test_what_a_data_set_holds_is_told_without_making_items(holder: str, numbers: list[int], place: int) -> None:
    changed = [*numbers]
    changed[place % len(numbers)] += 1
    known = of_dataset(HOLDERS[holder](numbers))
    assert known == of_dataset(HOLDERS[holder]([*numbers]))
    assert differences({"a": known}, {"a": of_dataset(HOLDERS[holder](changed))})


@pytest.mark.slow
def test_images_are_known_by_their_content(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "a", per_class=4)

    def known(path: Path, **options: Any) -> Any:
        images = load(DataConfig(data=str(path), **options))
        batches = images.batches(0)[0]
        batches.classes = images.classes
        return of_dataset(batches)

    usual = known(folder)
    assert usual == known(folder, in_memory=False, workers=0)
    moved = Path(shutil.move(folder, tmp_path / "b"))
    assert usual == known(moved)
    (moved / "train" / "cat").rename(moved / "train" / "bird")
    (moved / "test" / "cat").rename(moved / "test" / "bird")
    assert {key for key, value in known(moved).items() if usual[key] != value} == {"classes"}
    first = next((moved / "train" / "bird").iterdir())
    shutil.copy(next((moved / "train" / "dog").iterdir()), first)
    assert {key for key, value in known(moved).items() if usual[key] != value} == {"classes", "sample"}


@pytest.mark.parametrize("changed", ["sample", "count", "labels", "classes"])
def test_only_images_that_differ_in_nothing_but_pixels_may_be_decoded_otherwise(changed: str) -> None:
    saved = {"training data": {"count": 3, "size": [3, 4, 4], "labels": "a", "sample": "b", "classes": "c"}}
    current = {"training data": {**saved["training data"], "sample": "x", changed: "y"}}
    assert decoded_otherwise(differences(saved, current), current) == (changed == "sample")
    text = {"training data": {"bytes": 3, "sample": "x"}}
    assert not decoded_otherwise(differences(saved, text), text)


@pytest.mark.slow
def test_moved_data_are_found_at_their_new_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "--base-kwargs", "width=4", "--motivated-kwargs", "width=6", "--batch-size", "4"]
    first = image_folder(tmp_path / "a", per_class=4)
    output = ["--output", str(tmp_path / "run")]
    assert main([*train, "--epochs", "1", "--data", str(first), *output]) == 0
    moved = shutil.move(first, tmp_path / "b")
    again = ["train", "--epochs", "2", "--data", str(moved), *output, "--resume"]
    assert main(again) == 0
    image = next((moved / "train" / "cat").iterdir())
    shutil.copy(next((moved / "train" / "dog").iterdir()), image)
    capsys.readouterr()
    again[2] = "3"
    assert main(again) == 2
    told = capsys.readouterr().err
    assert "training data, sample" in told and "Only pixels differ" in told and "of a decoder resizes or" in told
    assert main([*again, "--accept-changed-data"]) == 0
