"""The tables of the documentation that say what folders and files may look like."""

import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from seeking import SeekingError
from seeking.data import DataConfig, load

pytestmark = pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
Row = list[str]


def table(heading: str) -> list[Row]:
    """The rows of the table with this heading."""
    lines = PAGE.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1].splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[: lines.index("")]]
    assert cells
    return cells


def picture(number: int) -> Image.Image:
    """An image that can be told from others by its first pixel."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    pixels[0, 0] = number
    return Image.fromarray(pixels)


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def check(root: Path, training: str, test: str, classes: str | None = None) -> None:
    """Load a folder, and compare the images of both splits with those that the documentation names."""
    if training.startswith("refused"):
        with pytest.raises(SeekingError):
            load(DataConfig(data=str(root)))
        return
    data = load(DataConfig(data=str(root)))
    found = [sorted(images.pixels[:, 0, 0, 0].tolist()) for images in (data.train, data.test)]
    if "held out" in training:
        found = [sorted(found[0] + found[1]), []]
    assert found == [numbers(training), numbers(test)]
    assert classes is None or " ".join(data.classes) == classes


@pytest.mark.parametrize(
    "row", table("| a folder with | training | test | classes |"), ids=lambda row: re.sub(r"[`/ ]+", "-", row[0])
)
def test_folders_of_images(row: Row, tmp_path: Path) -> None:
    for path in re.findall("`(.*?)`", row[0]):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        picture(int(Path(path).stem)).save(tmp_path / path, "PNG")  # Whatever the extension; it is lossless.
    check(tmp_path, *row[1:])


def parquet(path: Path, images: list[int], labels: list[Any], feature: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    table = {"image": [picture(number) for number in images], "label": labels}
    datasets.Dataset.from_dict(table, features=features).to_parquet(path)


@pytest.mark.parametrize(
    "row", table("| a folder with | training | test |"), ids=lambda row: re.sub(r"[`/ ]+", "-", row[0])
)
def test_folders_of_parquet_files(row: Row, tmp_path: Path) -> None:
    for number, path in enumerate(re.findall("`(.*?)`", row[0]), start=1):
        parquet(tmp_path / path, [number], [0], datasets.Value("int64"))
    check(tmp_path, *row[1:])


@pytest.mark.parametrize(
    "row",
    table("| labels of `train.parquet` | labels of `test.parquet` | classes |"),
    ids=lambda row: "-".join(row[:2]),
)
def test_labels(row: Row, tmp_path: Path) -> None:
    written = {}
    for split, column in zip(("train", "test"), row, strict=False):
        kind, *names = column.split()
        written[split] = names
        labels: list[Any] = [int(name) for name in names] if kind == "integers" else names
        feature = (
            datasets.ClassLabel(names=names)
            if kind == "classes"
            else datasets.Value("string" if kind == "strings" else "int64")
        )
        parquet(tmp_path / f"{split}.parquet", list(range(len(names))), labels, feature)
    if row[2].startswith("refused"):
        with pytest.raises(SeekingError):
            load(DataConfig(data=str(tmp_path)))
        return
    data = load(DataConfig(data=str(tmp_path)))
    assert " ".join(data.classes) == row[2]
    for split, images in (("train", data.train), ("test", data.test)):
        assert [data.classes[label] for label in images.labels] == written[split]
