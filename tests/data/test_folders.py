"""Which split and class the files of a folder get."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import folder, pictures, told
from torchvision.datasets import ImageFolder

from seeking import SeekingError
from seeking.cli import main
from seeking.data import DataConfig, load
from seeking.data.folders import IMAGE_EXTENSIONS, Splits, files, standard_split, walk
from seeking.data.image_folder import image_folder

pytestmark = pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")

TRICKY = ("train", "test", "val", "test-tube", "pen test", "__background__", ".net", "[v2]", "*", "a-b", "a", "data")
NAMES = st.sampled_from(TRICKY) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=6
)
SAFE_NAMES = NAMES.filter(lambda name: name not in (".", ".."))
FILES = st.builds("".join, st.tuples(SAFE_NAMES, st.sampled_from((".png", ".JPEG", ".tiff", ".txt", ""))))
CLASS = st.dictionaries(st.sampled_from(("", "images", "deeper/still", ".hidden")), st.lists(FILES, max_size=3))
CLASSES = st.dictionaries(SAFE_NAMES, CLASS, min_size=1, max_size=4)


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


def test_classes_of_several_folders_are_told_of(tmp_path: Path) -> None:
    root = pictures(tmp_path, *(f"train/{name}/{part}/0.png" for name in "ab" for part in "xyz"), "test/a/0.png")
    data, (message, _) = told(root)
    assert data.classes == ("a", "b")
    assert "the images of a lie in 3 folders (train/a/x, train/a/y, train/a/z)" in message


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
