"""Classes of images that a file lists."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import pictures, told

from seeking import SeekingError
from seeking.data import DataConfig, load
from seeking.data.annotations import annotated

pytestmark = pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")


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
