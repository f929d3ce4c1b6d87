"""Which split and class the files of a folder get."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder

from seeking import SeekingError
from seeking.checkpointing import manifest
from seeking.cli import main
from seeking.data import DataConfig, ImageData, load
from seeking.data.annotations import annotated
from seeking.data.folders import IMAGE_EXTENSIONS, Splits, files, standard_split, walk
from seeking.data.image_folder import image_folder
from seeking.errors import RunWarning

pytestmark = pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")

TRICKY = ("train", "test", "val", "test-tube", "pen test", "__background__", ".net", "[v2]", "*", "a-b", "a", "data")
NAMES = st.sampled_from(TRICKY) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=6
)
SAFE_NAMES = NAMES.filter(lambda name: name not in (".", ".."))
FILES = st.builds("".join, st.tuples(SAFE_NAMES, st.sampled_from((".png", ".JPEG", ".tiff", ".txt", ""))))
CLASS = st.dictionaries(st.sampled_from(("", "images", "deeper/still", ".hidden")), st.lists(FILES, max_size=3))
CLASSES = st.dictionaries(SAFE_NAMES, CLASS, min_size=1, max_size=4)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "data"


def picture(path: Path, number: int = 0) -> None:
    """An image that can be told from others by its first pixel."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    pixels[0, 0] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def pictures(root: Path, *paths: str) -> str:
    for number, path in enumerate(paths):
        picture(root / path, number)
    return str(root)


def write(root: Path, classes: dict[str, dict[str, list[str]]], linked: bool = False) -> None:
    """Empty files; ImageFolder does not look into them when it lists a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for name, inner in classes.items():
        place = root
        if linked:
            place = root.parent.parent / "kept" / root.name
            place.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(place / name)
        (place / name).mkdir()
        for below, held in inner.items():
            (place / name / below).mkdir(parents=True, exist_ok=True)
            for file in held:
                if not (place / name / below / file).exists():
                    (place / name / below / file).touch()


def samples(splits: Splits, split: str) -> tuple[list[str], list[tuple[str, int]]]:
    rows = splits[split].rows[0].with_format("arrow")[:]
    paths = [image["path"] for image in rows["image"].to_pylist()]
    return splits[split].rows[0].features["label"].names, list(zip(paths, rows["label"].to_pylist(), strict=True))


def by_image_folder(root: Path) -> tuple[list[str], list[tuple[str, int]]]:
    listed = ImageFolder(root, allow_empty=True)
    return listed.classes, listed.samples


def depths(root: Path) -> list[int]:
    """In how many folders the images of each class are."""
    return [
        len({path.parent for path in top.rglob("*") if path.is_file() and path.name.lower().endswith(IMAGE_EXTENSIONS)})
        for top in root.iterdir()
    ]


@pytest.mark.slow
@given(
    train=CLASSES, test=CLASSES, names=st.sampled_from((("train", "test"), ("Training", "val"))), linked=st.booleans()
)
@settings(max_examples=40)
def test_split_and_class_are_those_of_image_folder(train: Any, test: Any, names: tuple[str, str], linked: bool) -> None:
    with folder() as root:
        for name, classes in zip(names, (train, test), strict=True):
            write(root / name, classes, linked)
        tree = walk(str(root))
        chosen = {str(standard_split(name)): name for name in names}
        asked, unused = image_folder(str(root), tree, chosen)
        used = []
        for split, name in chosen.items():
            if split in asked:
                assert samples(asked, split) == by_image_folder(root / name)
                used += [str(Path(path).relative_to(root)) for path, _ in samples(asked, split)[1]]
        assert sorted(used + unused) == sorted(files(tree)), "every file is used or told of, once"
        assert not any(path.lower().endswith(IMAGE_EXTENSIONS) for path in unused)
        deep = len(train) == 1 and max(depths(root / names[0])) > 1
        strange = train.keys().isdisjoint(test) and sum(depths(root / names[1]))
        if deep or strange:
            with pytest.raises(SeekingError, match="train_split" if deep else "no class in common"):
                image_folder(str(root), tree)
        else:
            splits, _ = image_folder(str(root), tree)
            by_split = {split: samples(splits, split) for split in splits}
            assert by_split == {split: samples(asked, split) for split in asked}


@given(CLASSES)
@settings(max_examples=30)
def test_without_folders_of_splits_the_classes_are_at_the_top(classes: Any) -> None:
    classes = {name: held for name, held in classes.items() if not standard_split(name)}
    with folder() as root:
        write(root, classes)
        if not classes:
            return
        tree = walk(str(root))
        assert samples(image_folder(str(root), tree, {"train": "."})[0], "train") == by_image_folder(root)
        if max(depths(root)) > 1:
            with pytest.raises(SeekingError, match=r"train_split \."):
                image_folder(str(root), tree)
        else:
            assert samples(image_folder(str(root), tree)[0], "train") == by_image_folder(root)


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Training", "testing"), ("TRAIN", "valid"), ("train", "val"), ("train", "validation")],
)
def test_splits_in_their_usual_spellings(train: str, test: str, tmp_path: Path) -> None:
    root = pictures(tmp_path, f"{train}/cat/a.png", f"{train}/dog/b.png", f"{test}/cat/c.png", f"{test}/dog/d.png")
    data = load(DataConfig(data=root))
    assert [(split.use, split.source, split.classes, split.images) for split in data.splits] == [
        ("training", train, 2, 2),
        ("test", test, 2, 2),
    ]
    assert data.train.pixels[:, 0, 0, 0].tolist() == [0, 1]
    assert data.test.pixels[:, 0, 0, 0].tolist() == [2, 3]


def told(root: str, **options: Any) -> tuple[ImageData, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RunWarning)
        data = load(DataConfig(data=root, **options))
    return data, [str(warning.message) for warning in caught if issubclass(warning.category, RunWarning)]


def test_what_is_not_used_is_counted_and_named(tmp_path: Path) -> None:
    root = pictures(
        tmp_path, *(f"{split}/{name}/{n}.png" for split in ("train", "test") for name in "ab" for n in (1, 2))
    )
    pictures(tmp_path, "train/a/001", "train/b/002", "val/a/3.png", "extra/a/4.png", "test/5.png")
    for number in range(5):
        (tmp_path / "train" / "a" / f"{number}.txt").touch()
    data, (message,) = told(root)
    assert message.endswith(
        "not used are 5 .txt (train/a/0.txt, train/a/1.txt, train/a/2.txt, …); 2 .png (extra/a/4.png, test/5.png); "
        "2 without extension (train/a/001, train/b/002)"
    )
    assert [(split.use, split.source, split.images) for split in data.splits] == [
        ("training", "train", 4),
        ("test", "test", 4),
        ("not used", "val", 1),
    ]


def test_classes_without_images_are_told_of(tmp_path: Path) -> None:
    root = pictures(tmp_path, *(f"train/{name}/0.png" for name in "ab"), *(f"test/{name}/0.png" for name in "ac"))
    (tmp_path / "train" / "empty").mkdir()
    data, messages = told(root)
    assert data.classes == ("a", "b", "empty", "c")
    assert data.test.labels.tolist() == [0, 3]
    assert [message.split(": ", 1)[1] for message in messages] == [
        "1 of 4 classes have no images: empty",
        "1 of 4 classes have images in train alone: b",
        "1 of 4 classes have images in test alone: c",
    ]


def test_tiny_imagenet(tmp_path: Path) -> None:
    """The labels of its test images are not published, and those of its validation images are in a file."""
    root = pictures(
        tmp_path, *(f"{split}/n{n}/images/{n}.JPEG" for split in ("train", "val") for n in (1, 2)), "test/images/0.JPEG"
    )
    for name in ("wnids.txt", "train/n1/n1_boxes.txt"):
        (tmp_path / name).touch()
    data, (message,) = told(root)
    assert data.classes == ("n1", "n2")
    assert [split.source for split in data.splits] == ["train", "val"]
    assert message.endswith("2 .txt (train/n1/n1_boxes.txt, wnids.txt); 1 .jpeg (test/images/0.JPEG)")


@pytest.mark.parametrize("folder", ["val/images", "val"])
def test_validation_images_whose_classes_a_file_lists(folder: str, tmp_path: Path) -> None:
    """Tiny ImageNet as it is distributed, and images beside the file."""
    root = pictures(
        tmp_path,
        *(f"train/n{n}/images/n{n}_{k}.JPEG" for n in (1, 2) for k in (0, 1)),
        *(f"{folder}/val_{n}.JPEG" for n in range(3)),
        "test/images/test_0.JPEG",
    )
    lines = "val_0.JPEG\tn2\t0\t32\t44\t62\nval_1.JPEG\tn1\t5\t5\t6\t6\nval_2.JPEG\tn2\t0\t0\t1\t1\n"
    (tmp_path / "val" / "val_annotations.txt").write_text(lines)
    data, (message,) = told(root)
    assert [(split.use, split.source, split.images) for split in data.splits] == [
        ("training", "train", 4),
        ("test", "val", 3),
    ]
    by_name = {2: 4, 1: 5}  # The numbers of the images.
    assert [data.classes[label] for label in data.test.labels] == ["n1", "n2", "n2"]
    assert data.test.pixels[:, 0, 0, 0].tolist() == [by_name[1], by_name[2], 6]
    assert message.endswith("not used are 1 .jpeg (test/images/test_0.JPEG)")
    for wrong in (lines.replace("n1", "n3"), lines.replace("val_2", "val_9"), "\0", ""):
        (tmp_path / "val" / "val_annotations.txt").write_text(wrong)
        with pytest.raises(SeekingError, match=r"no class in common: n1, n2 in train and images in .*list each image"):
            load(DataConfig(data=root))


@given(data=st.data())
@settings(max_examples=40)
def test_names_of_classes_in_such_a_file_may_hold_each_other(data: st.DataObject) -> None:
    """``pen`` and ``pen test``: with any separator, each image gets the class that its line names."""
    word = st.sampled_from(["pen", "test", "1", "n02"])
    names = st.lists(word, min_size=1, max_size=3).map(" ".join)
    classes = data.draw(st.lists(names, min_size=1, max_size=5, unique=True))
    labels = data.draw(st.lists(st.sampled_from(classes), min_size=1, max_size=6))
    form = data.draw(st.sampled_from(["{}\t{}\t7\t8", "{},{},x", '"{}","{}"', "{}, {}", "{} {}", "{} {} 9.5 3"]))
    blank = "" if form.startswith("{} ") else " "
    images = [f"val/images/{number}{blank}.png" for number in range(len(labels))]
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "val").mkdir()
        lines = [form.format(Path(image).name, label) for image, label in zip(images, labels, strict=True)]
        text = data.draw(st.sampled_from(["", "\ufeff", "name,label\n"])) + "\n".join(lines)
        (Path(root) / "val" / "list.txt").write_text(text, encoding="utf-8")
        annotations = annotated(root, "val", {"images": images}, ["val/list.txt"], classes)
    assert annotations is not None
    assert {path: name for name, paths in annotations[0].items() for path in paths} == dict(
        zip(images, labels, strict=True)
    )


@given(data=st.data())
@settings(max_examples=60)
def test_columns_that_may_both_be_the_classes_are_refused(data: st.DataObject) -> None:
    """Classes that are numbers, beside widths and boxes: taken where only one column can be the classes."""
    classes = ["0", "1", "2"]
    count = data.draw(st.integers(1, 5))
    numbers = st.sampled_from(["0", "1", "2", "480", ""])
    rows = data.draw(st.lists(st.tuples(numbers, numbers, numbers), min_size=count, max_size=count))
    separator = data.draw(st.sampled_from(["\t", ",", ", "]))
    images = [f"val/{number}.png" for number in range(count)]
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "val").mkdir()
        lines = [separator.join((Path(image).name, *row)) for image, row in zip(images, rows, strict=True)]
        (Path(root) / "val" / "list.csv").write_text("\n".join(lines))
        columns = [*zip(*rows, strict=True)]
        possible = [column for column in columns if {*column} <= {*classes}]
        if columns[0] in possible and len({*possible}) > 1:
            with pytest.raises(SeekingError, match=r"val/list\.csv, columns 2 and [34] hold names of classes"):
                annotated(root, "val", {"": images}, ["val/list.csv"], classes)
            return
        annotations = annotated(root, "val", {"": images}, ["val/list.csv"], classes)
    if columns[0] in possible:
        assert annotations is not None
        assert {path: name for name, paths in annotations[0].items() for path in paths} == dict(
            zip(images, columns[0], strict=True)
        )
    else:
        assert annotations is None


@pytest.mark.parametrize("texts", [["a.png x\na.png y\n"], ["a.png x\n", "a.png y\n"]])
def test_files_that_list_an_image_with_two_classes_are_refused(texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "val" / f"{number}.txt").write_text(text)
    files = [f"val/{number}.txt" for number in range(len(texts))]
    with pytest.raises(SeekingError, match=r"val/0\.txt.* list a\.png as x and as y"):
        annotated(str(tmp_path), "val", {"images": ["val/images/a.png"]}, files, ["x", "y"])


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


def test_classes_of_several_folders_are_told_of(tmp_path: Path) -> None:
    root = pictures(tmp_path, *(f"train/{name}/{part}/0.png" for name in "ab" for part in "xyz"), "test/a/0.png")
    data, (message, _) = told(root)
    assert data.classes == ("a", "b")
    assert "the images of a lie in 3 folders (train/a/x, train/a/y, train/a/z)" in message


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


def test_where_test_images_come_from(tmp_path: Path) -> None:
    root = pictures(tmp_path / "all", *(f"{name}/{n}.png" for name in "ab" for n in range(20)))
    assert load(DataConfig(data=root)).splits[1].source == f"0.1 of {root}, held out"
    root = pictures(
        tmp_path / "data",
        *(f"{split}/{name}/{n}.png" for split in ("train", "test") for name in "ab" for n in range(5)),
    )
    data = load(DataConfig(data=root, validation=0.2, max_train_samples=6))
    assert [(split.use, split.source, split.images) for split in data.splits] == [
        ("training", "train", 6),
        ("test", "0.2 of train, held out", 2),
        ("not used", "test", 10),
    ]
    assert [split.source for split in load(DataConfig()).splits] == ["the other images", "every fifth image"]


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


def test_the_table_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(
        tmp_path / "[v2]",
        *(f"{split}/{name}/{n}.png" for split in ("train", "test") for name in ("test", "train") for n in range(4)),
    )
    (tmp_path / "[v2]" / "labels.csv").touch()
    options = ["--base", "resnet8", "--motivated", "resnet14", "--epochs", "1", "--batch-size", "4", "--device", "cpu"]
    assert main(["train", "--data", root, *options, "--output", str(tmp_path / "run"), "--no-verify"]) == 0
    out, err = capsys.readouterr()
    assert "not used are 1 .csv (labels.csv)" in err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert rows[:2] == [["training", "train", "2", "8"], ["test", "test", "2", "8"]]


@given(listed=st.integers(1, 3))
def test_a_list_of_a_part_of_the_images_is_named(listed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("part")
    for path in ("train/a/0.png", "train/b/1.png", *(f"val/images/{number}.png" for number in range(4))):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    (root / "val" / "list.txt").write_text("".join(f"{number}.png\ta\n" for number in range(listed)))
    with pytest.raises(
        SeekingError, match=rf"val/list.txt lists {listed} of 4 images, and not {listed}.png; complete it"
    ):
        load(DataConfig(data=str(root)))


def test_a_list_that_is_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("0.png", "metadata.csv"):
        (tmp_path / "train" / name).touch()
    with pytest.raises(SeekingError, match=r"train has no folders of classes \(train/metadata.csv is not read\)"):
        load(DataConfig(data=str(tmp_path)))


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
