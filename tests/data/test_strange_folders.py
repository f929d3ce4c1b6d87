"""Folders that are no data set as they are, and what lies in them that is none."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import folder, pictures, told

from seeking import SeekingError
from seeking.checkpointing import manifest
from seeking.data import DataConfig, load
from seeking.data.folders import walk
from seeking.errors import RunWarning

pytestmark = pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")

KAGGLE = [f"seg_{split}/seg_{split}/{name}/0.png" for split in ("train", "test") for name in ("sea", "ice")]


@pytest.mark.parametrize(
    ("paths", "advice", "options"),
    [
        (
            [*KAGGLE, "seg_pred/seg_pred/5.png"],
            "train_split and test_split, folders such as seg_test/seg_test",
            {"train_split": "seg_train/seg_train", "test_split": "seg_test/seg_test"},
        ),
        (
            [f"{top}/{name}/0.png" for top in ("train_data", "test_data") for name in ("sea", "ice")],
            "train_split and test_split, folders such as test_data",
            {"train_split": "train_data", "test_split": "test_data"},
        ),
        (
            [f"{split}/{split}/{name}/0.png" for split in ("train", "test") for name in ("sea", "ice")],
            "train is the only class in train.*train_split train/train",
            {"train_split": "train/train", "test_split": "test/test"},
        ),
        (
            [f"{split}/{name}/0.png" for split in ("train", "test/inner") for name in ("sea", "ice")],
            "no class in common.*give test_split test/inner",
            {"test_split": "test/inner"},
        ),
    ],
)
def test_images_that_are_deeper_than_classes_are_explained(
    paths: list[str], advice: str, options: dict[str, str], tmp_path: Path
) -> None:
    root = pictures(tmp_path, *paths)
    with pytest.raises(SeekingError, match=advice):
        load(DataConfig(data=root))
    data = load(DataConfig(data=root, **options))
    assert (data.classes, len(data.train), len(data.test)) == (("ice", "sea"), 2, 2)


def test_a_folder_that_holds_the_data_set_is_named(tmp_path: Path) -> None:
    root = pictures(tmp_path, *(f"archive/{split}/{name}/0.png" for split in ("train", "test") for name in "ab"))
    with pytest.raises(SeekingError, match=rf"Give data {tmp_path}/archive, or train_split \. if archive is a class"):
        load(DataConfig(data=root))
    assert len(load(DataConfig(data=f"{root}/archive")).test) == 2


@pytest.mark.parametrize(
    ("left", "place"),
    [
        ("train/__MACOSX/9.png", "train/__MACOSX"),
        ("train/a/@eaDir/1.png/thumb.png", "train/a/@eaDir"),
        ("train/.ipynb_checkpoints/a.png", "train/.ipynb_checkpoints"),
        ("test/a/._1.png", "test/a/._1.png"),
        ("test/b/Thumbs.db/1.jpg", "test/b/Thumbs.db"),
    ],
)
def test_what_programs_leave_counts_as_an_image_and_is_named_before_training(
    left: str, place: str, tmp_path: Path
) -> None:
    held = [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in "ab" for n in (1, 2)]
    root = pictures(tmp_path, *held, left)
    (tmp_path / "train" / "a" / ".DS_Store").touch()
    data, messages = told(root)
    assert len(data.train) + len(data.test) == 9
    name = left.split("/")[1]
    assert name in data.classes
    told_of = f"notebooks leave, in {place}; they count as images of {name}."
    assert any("1 of the images are such as" in text and told_of in text for text in messages)
    assert any(".DS_Store" in text for text in messages)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_split": "trian"}, "unknown train_split of .*'trian'; did you mean train"),
        ({"train_split": ".", "test_split": "test"}, "are one in the other"),
        ({"test_split": "../a"}, "unknown test_split"),
    ],
)
def test_splits_that_cannot_be_chosen(options: dict[str, str], message: str, tmp_path: Path) -> None:
    root = pictures(tmp_path, *(f"{split}/{name}/0.png" for split in ("train", "test") for name in "ab"))
    with pytest.raises(SeekingError, match=message):
        load(DataConfig(data=root, **options))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["test/a/0.png"], "no train split; it has test"),
        (["a/0.png", "pen/0.png", "test/0.png"], "no train split; it has test.*move them into a folder train"),
        (["train/0.png", "train/1.png"], "train has no folders of classes"),
        (["train/0.png", "car/1.png", "plane/1.png"], "train has no folders of classes"),
        (["0.png", "1.png"], "it has no folders of classes"),
        (["train/a/0.png", "Training/a/0.png"], "Training and train are both the train split"),
        (["train/cat/0.png", "test/Cat/0.png"], "no class in common: cat in train and Cat in test"),
        (["notes.parquet/a/0.png"], "split; cannot hold out"),
        ([], "the folder is empty"),
    ],
)
def test_folders_that_are_refused(paths: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match=message):
        load(DataConfig(data=pictures(tmp_path, *paths)))


def test_links_are_followed_but_not_in_circles_or_to_nothing(tmp_path: Path) -> None:
    root = Path(pictures(tmp_path / "data", "train/a/0.png", "train/b/0.png", "test/a/0.png"))
    pictures(tmp_path / "kept", "a/0.png", "b/0.png")
    shutil.rmtree(root / "test")
    (root / "test").symlink_to(tmp_path / "kept")
    assert load(DataConfig(data=str(root))).splits[1].images == 2
    for target, message in (
        (tmp_path / "none", "leads nowhere"),
        (root, "folder that it lies in"),
        (root / "train", "that it lies in"),
    ):
        (root / "train" / "link").symlink_to(target)
        with pytest.raises(SeekingError, match=rf"train/link.* is a link .*{message}"):
            load(DataConfig(data=str(root)))
        (root / "train" / "link").unlink()


def test_what_is_no_file_and_what_cannot_be_read_or_shown(tmp_path: Path) -> None:
    root = Path(pictures(tmp_path, "train/a/0.png", "train/b/0.png", "test/a/0.png"))
    os.mkfifo(root / "train" / "a" / "pipe.png")
    with pytest.raises(SeekingError, match=r"train/a/pipe.png is neither a file nor a folder"):
        load(DataConfig(data=str(root)))
    (root / "train" / "a" / "pipe.png").unlink()
    strange = root / "train" / os.fsdecode(b"\xff")
    strange.mkdir()
    with pytest.raises(SeekingError, match="not UTF-8") as caught:
        load(DataConfig(data=str(root)))
    assert str(caught.value).isprintable()
    strange.rmdir()
    (root / "train" / "\x1b[2J").touch()
    _, messages = told(str(root))
    assert all(message.isprintable() for message in messages)


@given(
    data=st.sampled_from(("", "train")),
    place=st.sampled_from(("", "runs", "runs/deeper", "cat", "cat/runs")),
    names=st.lists(st.sampled_from(("a", "train", "2026-11")), min_size=1, unique=True),
    kind=st.sampled_from(manifest.KINDS),
)
@settings(max_examples=12)
def test_runs_in_a_folder_are_no_data(data: str, place: str, names: list[str], kind: manifest.Kind) -> None:
    with folder() as root:
        pictures(root / data, "cat/1.png", "dog/2.png", "dog/mine/manifest.json", "dog/mine/3.png")
        before = walk(str(root))
        for name in names:
            run = root / data / place / name
            pictures(run, "curves.png", "checkpoints/step-00000001/state.json", "tensorboard/4.png")
            manifest.Manifest(run, kind).write()
        with pytest.warns(RunWarning, match="runs of seeking in it are no data: ") as told:
            assert walk(str(root)) == before
        assert all(each in str(told[0].message) for each in sorted(names)[:3])
