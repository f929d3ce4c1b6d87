"""Labels by the names of their classes."""

import string
import unicodedata
import warnings
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeking import SeekingError
from seeking.data.folders import Split
from seeking.data.labels import read_labels
from seeking.data.labels import unite as unite_labelled

pytestmark = pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")
NAMES = list(string.ascii_lowercase[:8])


def unite(train: Split, test: Split | None, column: str, data: str) -> tuple[Any, Any, tuple[str, ...]]:
    return unite_labelled(
        *(None if split is None else read_labels(split, column, data) for split in (train, test)), column, data
    )


def rows(labels: list[Any], kind: str, names: list[str] | None = None) -> Any:
    """Rows whose labels, given by name, are stored in this way. Each row has the number of its label's name, too."""
    feature = datasets.ClassLabel(names=names) if kind == "class" else datasets.Value(kind)
    stored = [
        None if label is None else names.index(label) if names and kind != "string" else label for label in labels
    ]
    truth = [str(label) for label in labels]
    features = datasets.Features({"label": feature, "truth": datasets.Value("string")})
    return datasets.Dataset.from_dict({"label": stored, "truth": truth}, features=features)


@st.composite
def parts(draw: st.DrawFn) -> Any:
    """Rows of one file: labels as strings, or as numbers of names in any order."""
    labels = draw(st.lists(st.sampled_from(NAMES[:5]), min_size=1, max_size=6))
    kind = draw(st.sampled_from(("class", "string", "large_string")))
    order = draw(st.permutations(NAMES)) if kind == "class" else None
    return rows(labels, kind, order)


@pytest.mark.slow
@given(st.lists(parts(), min_size=1, max_size=3), st.lists(parts(), min_size=1, max_size=3))
@settings(max_examples=60)
def test_labels_keep_their_names_whatever_the_order_of_classes(train: list[Any], test: list[Any]) -> None:
    splits = Split("train", train), Split("test", test)
    common = {name for split in (train,) for part in split for name in part["truth"]}
    ordered = any(isinstance(part.features["label"], datasets.ClassLabel) for part in train)
    if not ordered and common.isdisjoint(name for part in test for name in part["truth"]):
        with pytest.raises(SeekingError, match="no class in common"):
            unite(*splits, "label", "data")
        return
    *united, classes = unite(*splits, "label", "data")
    assert len(set(classes)) == len(classes)
    for split, joined in zip((train, test), united, strict=True):
        assert joined["truth"][:] == [name for part in split for name in part["truth"]]
        assert [classes[label] for label in joined["label"]] == joined["truth"][:]


def test_the_order_of_classes() -> None:
    classes = [rows(["b", "a"], "class", ["b", "a", "z"])]
    assert unite(Split("train", classes), None, "label", "data")[2] == ("b", "a", "z")
    strings = [rows(["b"], "string"), rows(["a"], "string")]
    assert unite(Split("train", strings), None, "label", "data")[2] == ("a", "b")
    assert unite(Split("train", classes), Split("test", [rows(["c", "a"], "string")]), "label", "data")[2][3:] == ("c",)
    labels_alone = rows(["b", "a"], "string").remove_columns("truth")
    assert unite(Split("train", [labels_alone]), None, "label", "data")[0]["label"][:] == [1, 0]
    digits = [rows(["1", "0"], "class", ["0", "1"])]
    test = rows([1, 0], "int64")
    assert unite(Split("train", digits), Split("test", [test]), "label", "data")[1]["label"][:] == [1, 0]


def test_missing_labels_stay_missing() -> None:
    for part in (
        rows(["a", None, "b"], "class", ["b", "a"]),
        rows(["a", None, "b"], "string"),
        rows([1, None, 0], "int64"),
    ):
        other = (
            rows(["a", "b"], "class", ["a", "b"])
            if part.features["label"].dtype != "int64" or hasattr(part.features["label"], "names")
            else rows([0, 1], "int32")
        )
        test = unite(Split("train", [other]), Split("test", [part]), "label", "data")[1]
        assert [-1 if label is None else label for label in test["label"]][1] == -1


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            rows(["a", "b"], "class", ["a", "b"]),
            rows([0, 1], "int64"),
            r"holds numbers \(0, 1\) in some files and names \(a, b\)",
        ),
        (rows([0, 1], "int64"), rows(["a", "b"], "string"), r"holds numbers \(0, 1\) in some files and names \(a, b\)"),
        (rows([1, 2], "int64"), rows([0, 1], "int64"), "labels 0 are in test and not in train"),
        (rows(["a", "b"], "string"), rows(["A", "B"], "string"), "no class in common: a, b and A, B"),
        (
            rows([0.0, 1.0], "float32"),
            rows([0.0, 1.0], "float32"),
            r"not classes, integers, strings or booleans.*TrainConfig\(loss='mse'\)",
        ),
    ],
)
def test_labels_that_cannot_be_identified(train: Any, test: Any, message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        unite(Split("train", [train]), Split("test", [test]), "label", "data")
    with pytest.raises(SeekingError, match="test has no column label"):
        unite(Split("train", [rows(["a"], "string")]), Split("test", [train.remove_columns("label")]), "label", "data")


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.sampled_from(("bool", "int8")))
@settings(max_examples=20)
def test_booleans_are_the_classes_0_and_1(labels: list[bool], other: str) -> None:
    train = Split("train", [rows([False, True, *labels], "bool")])
    test = Split("test", [rows(labels if other == "bool" else [int(label) for label in labels], other)])
    united = unite(train, test, "label", "data")
    assert united[2] == ("0", "1")
    assert united[1]["label"][:] == [int(label) for label in labels]


@given(
    st.sampled_from(("cafe\u0301", "Cat", "pen test", "\ufb01n", "straße")),
    st.sampled_from((str.upper, str.lower, lambda name: f"{name} ", lambda name: unicodedata.normalize("NFC", name))),
)
def test_classes_that_look_alike_are_told_of(name: str, change: Any) -> None:
    other = change(name)
    train, test = (Split(split, [rows(["dog", text], "string")]) for split, text in (("a", name), ("b", other)))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        classes = unite(train, test, "label", "data")[2]
    assert set(classes) == {"dog", name, other}, "the names are kept"
    alike = [str(each.message) for each in told if "form of letters alone" in str(each.message)]
    assert bool(alike) == (name != other)
    assert all(ascii(text) in alike[0] for text in (name, other)) if alike else True


@pytest.mark.parametrize("kind", ["float32", "binary", "timestamp[s]"])
def test_labels_of_other_types_are_refused_with_a_way_out(kind: str) -> None:
    held = datasets.Dataset.from_dict({"label": [None]}, features=datasets.Features({"label": datasets.Value(kind)}))
    with pytest.raises(SeekingError, match=r"label of train holds .*; store them so, or name another column"):
        read_labels(Split("train", [held]), "label", "data")
