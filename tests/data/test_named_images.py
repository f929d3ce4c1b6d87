"""Images that a table names by the paths of their files, and tables as ``datasets`` saves them."""

import os
import warnings
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seeking import SeekingError
from seeking.data import DataConfig, load
from seeking.data.folders import Split
from seeking.data.named_images import beside
from seeking.errors import RunWarning

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
KINDS: dict[str, Any] = {
    "struct": lambda paths: pa.array([{"bytes": None, "path": path} for path in paths], STRUCT),
    "string": lambda paths: pa.array(paths, pa.string()),
    "large_string": lambda paths: pa.array(paths, pa.large_string()),
}


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (number, 0, 9)).save(path)


def name_images(file: Path, paths: list[str], kind: str = "struct") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": KINDS[kind](paths), "label": [0, 1] * (len(paths) // 2)}), file)


@pytest.mark.parametrize("kind", KINDS)
def test_relative_paths_are_those_beside_the_file_that_names_them(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working, folder = tmp_path / "here", tmp_path / "data"
    for number, split in enumerate(("train", "test")):
        for image in range(4):
            picture(folder / split / "images" / f"{image}.png", 10 * number + image)
            picture(working / "images" / f"{image}.png", 100)  # Of the same name in the working directory.
        picture(tmp_path / "elsewhere.png", 77)
        paths = [f"images/{image}.png" for image in range(3)]
        name_images(folder / split / "0.parquet", [*paths, str(tmp_path / "elsewhere.png")], kind)
    working.mkdir(exist_ok=True)
    monkeypatch.chdir(working)
    for in_memory in (True, False):
        with warnings.catch_warnings(action="error", category=RunWarning):  # Such as that the images are not used.
            loaded = load(DataConfig(data="../data", image_column="image", in_memory=in_memory))
        both = [images.decoded(torch.device("cpu")) for images in (loaded.train, loaded.test)]
        brightness = [images.pixels[:, 0, 0, 0].tolist() for images in both]
        assert brightness == [[0, 1, 2, 77], [10, 11, 12, 77]]


@settings(max_examples=20)
@given(
    rows=st.lists(st.sampled_from([None, "bytes", "a.png", "b/c.png", "/d.png", "hf://e.png"]), min_size=1),
    size=st.integers(1, 5),
)
def test_paths_are_joined_in_any_chunks_and_nothing_else_changes(
    rows: list[str | None], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("rows") / "train.parquet"
    content = {None: None, "bytes": {"bytes": b"x", "path": "bytes.png"}}
    values = [content.get(row, {"bytes": None, "path": row}) for row in rows]
    column = pa.array(values, STRUCT)
    pq.write_table(pa.table({"image": column, "label": [*range(len(rows))]}), file, row_group_size=size)
    split = Split("train", [datasets.Dataset(pq.read_table(file))], [str(file.parent)])
    (joined,) = beside(split, "image").rows
    expected = [
        {**value, "path": f"{file.parent}/{value['path']}"} if row in ("a.png", "b/c.png") and value else value
        for row, value in zip(rows, values, strict=True)
    ]
    table = joined.with_format("arrow")[:]
    assert table["image"].to_pylist() == expected and table["label"].to_pylist() == [*range(len(rows))]


def test_a_pipe_among_named_images_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    picture(tmp_path / "0.png", 0)
    name_images(tmp_path / "train.parquet", ["0.png", "0.png", "0.png", "pipe.png"])
    with pytest.raises(SeekingError, match=r"pipe.png.*a pipe, which can be read only once"):
        load(DataConfig(data=str(tmp_path / "train.parquet")))


def test_folders_of_save_to_disk(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["b", "a"])})
    rows = {"image": [Image.new("RGB", (4, 4), (number, 1, 2)) for number in range(8)], "label": [0, 1] * 4}
    saved = datasets.Dataset.from_dict(rows, features=features)
    saved.save_to_disk(tmp_path / "one", num_shards=3)
    saved.select(range(4)).save_to_disk(tmp_path / "one", num_shards=1)  # The other shards of before stay there.
    alone = load(DataConfig(data=str(tmp_path / "one")))
    assert len(alone.train) + len(alone.test) == 4
    datasets.DatasetDict(train=saved, val=saved.select([5, 2])).save_to_disk(tmp_path / "two")
    both = load(DataConfig(data=str(tmp_path / "two")))
    assert both.train.pixels[:, 0, 0, 0].tolist() == [*range(8)]
    assert both.test.pixels[:, 0, 0, 0].tolist() == [5, 2] and both.test.labels.tolist() == [1, 0]
    assert both.classes == ("b", "a")
