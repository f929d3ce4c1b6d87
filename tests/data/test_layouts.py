"""The tables of the documentation that say what folders and files may look like."""

import io
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from seeking import SeekingError
from seeking.data import DataConfig, load, select
from seeking.data.labels import read_labels, unite
from seeking.data.sources import read

TRICKY = "a [v2] *?"
"""A name that is a pattern of names, too."""

pytestmark = pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
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


def file(number: int) -> dict[str, Any]:
    """The same image as it is stored."""
    stream = io.BytesIO()
    picture(number).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def check(root: Path, training: str, test: str, classes: str | None = None, **options: str) -> None:
    """Load a folder, and compare the images of both splits with those that the documentation names."""
    if training.startswith("refused"):
        with pytest.raises(SeekingError) as caught:
            load(DataConfig(data=str(root), **options))
        if "give" in training:
            assert all(word in str(caught.value) for word in re.findall("`(.*?)`", training))
        return
    data = load(DataConfig(data=str(root), **options))
    loaded = [sorted(images.pixels[:, 0, 0, 0].tolist()) for images in (data.train, data.test)]
    if "held out" in training:
        loaded = [sorted(loaded[0] + loaded[1]), []]
    assert loaded == [numbers(training), numbers(test)]
    assert classes is None or " ".join(data.classes) == classes


@pytest.mark.parametrize(
    "row", table("| a folder with | training | test | classes |"), ids=lambda row: re.sub(r"[`/ ]+", "-", row[0])
)
def test_folders_of_images(row: Row, tmp_path: Path) -> None:
    for path in re.findall("`(.*?)`", row[0]):
        (tmp_path / TRICKY / path).parent.mkdir(parents=True, exist_ok=True)
        picture(int(Path(path).stem)).save(tmp_path / TRICKY / path, "PNG")  # Whatever the extension; it is lossless.
    check(tmp_path / TRICKY, *row[1:])


@pytest.mark.parametrize(
    "row",
    table("| a folder with | options | training | test | classes |"),
    ids=lambda row: re.sub(r"[`/ ]+", "-", row[1]),
)
def test_folders_of_images_with_chosen_splits(row: Row, tmp_path: Path) -> None:
    for path in re.findall("`(.*?)`", row[0]):
        (tmp_path / TRICKY / path).parent.mkdir(parents=True, exist_ok=True)
        picture(int(Path(path).stem)).save(tmp_path / TRICKY / path, "PNG")
    words = row[1].strip("`").split()
    options = {name[2:].replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    check(tmp_path / TRICKY, *row[2:], **options)


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
        parquet(tmp_path / TRICKY / path, [number], [0], datasets.Value("int64"))
    check(tmp_path / TRICKY, *row[1:])


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


def test_files_with_classes_in_other_orders(tmp_path: Path) -> None:
    truth = []
    for number, names in enumerate((["cat", "dog"], ["dog", "cat"], ["fox", "dog"])):
        parquet(
            tmp_path / f"train-{number}.parquet", [2 * number, 2 * number + 1], names, datasets.ClassLabel(names=names)
        )
        truth += names
    parquet(tmp_path / "test.parquet", [0, 1], [0, 1], datasets.ClassLabel(names=["fox", "cat"]))
    data = load(DataConfig(data=str(tmp_path)))
    assert data.classes == ("cat", "dog", "fox")
    assert [data.classes[label] for label in data.train.labels] == truth
    assert data.train.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert [data.classes[label] for label in data.test.labels] == ["fox", "cat"]


def test_a_single_parquet_file(tmp_path: Path) -> None:
    parquet(tmp_path / "some.parquet", [*range(10)], [0, 1] * 5, datasets.Value("int64"))
    parquet(tmp_path / "other.parquet", [0], [7], datasets.Value("int64"))
    data = load(DataConfig(data=str(tmp_path / "some.parquet")))
    assert (len(data.train), len(data.test), data.classes) == (9, 1, ("0", "1"))
    (tmp_path / "some.txt").touch()
    with pytest.raises(SeekingError, match="not a folder or a parquet file"):
        load(DataConfig(data=str(tmp_path / "some.txt")))


def test_one_split_for_training_and_test_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [*range(10)], [0, 1] * 5, datasets.Value("int64"))
    for name in ("train", "train.parquet"):
        with pytest.raises(SeekingError, match="are both train; name two splits"):
            load(DataConfig(data=str(tmp_path), train_split="train", test_split=name))


@pytest.mark.parametrize(
    "missing", [datasets.ClassLabel(names=["cat", "dog"]), datasets.Value("null"), datasets.Value("string")]
)
def test_a_test_split_without_labels_is_not_used(missing: Any, tmp_path: Path) -> None:
    feature = datasets.ClassLabel(names=["cat", "dog"])
    for split, labels in {"train": [0, 1] * 5, "validation": [0, 1]}.items():
        parquet(tmp_path / f"{split}.parquet", [*range(len(labels))], labels, feature)
    parquet(tmp_path / "test.parquet", [0, 1], [-1 if missing == feature else None, None], missing)
    uses = [(split.use, split.source) for split in load(DataConfig(data=str(tmp_path))).splits]
    assert uses == [("training", "train.parquet"), ("test", "validation.parquet"), ("not used", "test.parquet")]
    (tmp_path / "validation.parquet").unlink()
    assert load(DataConfig(data=str(tmp_path))).splits[1].source == "0.1 of train.parquet, held out"


def test_files_without_rows(tmp_path: Path) -> None:
    feature = datasets.ClassLabel(names=["cat", "dog"])
    for name, values in {"train-0": [0, 1] * 5, "train-1": [], "test": []}.items():
        parquet(tmp_path / f"{name}.parquet", [*range(len(values))], values, feature)
    with pytest.raises(SeekingError, match=r"there is no row in test\.parquet; remove it") as caught:
        load(DataConfig(data=str(tmp_path)))
    assert "\n" not in str(caught.value)
    (tmp_path / "test.parquet").unlink()
    assert sum(split.images for split in load(DataConfig(data=str(tmp_path))).splits) == 10
    (tmp_path / "train-1.parquet").write_bytes(b"")
    with pytest.raises(SeekingError, match=r"train-1\.parquet cannot be read as parquet .*repair it"):
        load(DataConfig(data=str(tmp_path)))


@pytest.mark.parametrize("kind", ["integers", "classes", "strings"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_that_are_missing_are_counted(kind: str, split: str, tmp_path: Path) -> None:
    names: list[Any] = ["cat", "dog"] if kind == "strings" else [0, 1]
    feature = {"integers": datasets.Value("int64"), "strings": datasets.Value("string")}.get(
        kind, datasets.ClassLabel(names=["cat", "dog"])
    )
    for name in ("train", "test"):
        values = [*names, None, names[0], None] if name == split else [*names, *names]
        parquet(tmp_path / f"{name}.parquet", [*range(len(values))], values, feature)
    which = "training" if split == "train" else "test"
    with pytest.raises(SeekingError, match=rf"2 of 5 {which} images have no label .*such as image 2; remove them"):
        load(DataConfig(data=str(tmp_path)))


def test_labels_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feature = datasets.ClassLabel(names=["cat", "dog"])
    for split in ("train", "test", "validation"):
        parquet(tmp_path / f"{split}.parquet", [0, 1], [0, 1], feature)
    read_from = []

    def noted(split: Any, *args: str) -> Any:
        read_from.append(split.source)
        return read_labels(split, *args)

    monkeypatch.setattr(select, "read_labels", noted)
    load(DataConfig(data=str(tmp_path)))
    assert sorted(read_from) == ["test.parquet", "train.parquet"]


def test_a_chosen_test_split_must_have_labels(tmp_path: Path) -> None:
    for split, values in {"train": [0, 1], "test": [-1, None], "validation": [0, 1]}.items():
        parquet(tmp_path / f"{split}.parquet", [0, 1], values, datasets.ClassLabel(names=["cat", "dog"]))
    with pytest.raises(SeekingError, match=r"test\.parquet has no labels; name another split with test_split"):
        load(DataConfig(data=str(tmp_path), test_split="test"))


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.heic").touch()
    with pytest.raises(SeekingError, match=r"no parquet files and no images are in it, but 1 \.heic \(cat/1\.heic\)"):
        load(DataConfig(data=str(tmp_path)))


@pytest.mark.parametrize("kind", ["categories", "string_view", "large_string"])
def test_names_as_pandas_and_polars_store_them(kind: str, tmp_path: Path) -> None:
    truth = {"train": ["dog", "cat", "dog"], "test": ["cat", "dog"]}
    for split, names in truth.items():
        column = pa.array(names) if kind == "categories" else pa.array(names, getattr(pa, kind)())
        images = [file(number) for number in range(len(names))]
        table = pa.table({"image": images, "label": column.dictionary_encode() if kind == "categories" else column})
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
        metadata = features.arrow_schema.metadata if kind == "categories" else None
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / f"{split}.parquet")
    splits = read(str(tmp_path))
    labelled = (read_labels(splits[split], "label", "data") for split in ("train", "test"))
    train, test, classes = unite(*labelled, "label", "data")
    assert classes == ("cat", "dog")
    assert [[classes[label] for label in rows["label"]] for rows in (train, test)] == [*truth.values()]


def test_splits_of_the_hub_in_their_usual_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    held = {
        name: datasets.Dataset.from_dict({"image": [picture(number)], "label": ["cat"]}, features=features)
        for number, name in enumerate(("training", "dev", "test", "extra"))
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset: datasets.DatasetDict(held))
    datasets.DatasetDict(held).with_format("torch").save_to_disk(tmp_path / "saved")
    for name in ("someone/something", str(tmp_path / "saved")):
        uses = [(split.use, split.source) for split in load(DataConfig(data=name)).splits]
        assert uses == [("training", "training"), ("test", "test"), ("not used", "dev"), ("not used", "extra")]
    held["training"].save_to_disk(tmp_path / "one")
    with pytest.raises(SeekingError, match="1 images and no test split"):  # Of one split, it is to train on.
        load(DataConfig(data=str(tmp_path / "one")))
    chosen = load(DataConfig(data="someone/something", train_split="extra", test_split="validation"))
    uses = [(split.use, split.source) for split in chosen.splits]
    assert uses == [("training", "extra"), ("test", "dev"), ("not used", "training"), ("not used", "test")]
    with pytest.raises(SeekingError, match="unknown train_split of someone/something 'exta'; did you mean extra"):
        load(DataConfig(data="someone/something", train_split="exta"))


def test_chosen_splits_of_parquet_files(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "test", "validation")):
        parquet(tmp_path / f"{split}.parquet", [number] * 4, [0, 1, 0, 1], datasets.Value("int64"))
    check(tmp_path, "0 0 0 0", "2 2 2 2", "0 1", test_split="validation")


def test_a_split_without_the_image_column_is_refused(tmp_path: Path) -> None:
    for split, column in (("train", "image"), ("test", "img")):
        features = datasets.Features({column: datasets.Image(), "label": datasets.Value("int64")})
        held = datasets.Dataset.from_dict({column: [picture(0), picture(1)], "label": [0, 1]}, features=features)
        held.to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(SeekingError, match=r"test\.parquet has no column image; it has img, label\. Call the columns"):
        load(DataConfig(data=str(tmp_path)))
