"""Which values of a table are the same class or category."""

import functools
import re
import warnings
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from seeking import SeekingError
from seeking.data.table_columns import Column
from seeking.data.table_targets import in_order
from seeking.data.value_names import look_alike, surprises, value_name
from seeking.errors import RunWarning
from seeking.experiments.config import RunConfig
from seeking.experiments.tasks import task

NUMBERS = st.from_regex(r"[+-]?(0|[1-9][0-9]{0,4})(\.[0-9]{0,3})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
CODES = st.from_regex(r"[+-]?0[0-9]{1,3}", fullmatch=True)
WORDS = st.sampled_from(["b", "x1", "1x", "1,5", "٣", "0x1", "1 2", "é"])
CLASSES = st.one_of(CODES, WORDS, st.sampled_from(["1", "1.0", "+1", "1.", "1e0", "7", "7.0", "-0", "0", "12", "12.0"]))


@settings(max_examples=50)
@given(texts=st.lists(NUMBERS, min_size=2, max_size=8, unique=True))
def test_numbers_have_one_name_if_and_only_if_they_are_equal(texts: list[str]) -> None:
    for one, other in pairwise(texts):
        same = Decimal(one) == Decimal(other)
        assert (value_name(one) == value_name(other)) == same
        assert bool(surprises([one, other])) == same
    assert all(value_name(value_name(text)) == value_name(text) for text in texts)


@given(text=CODES | WORDS)
def test_all_else_has_the_name_that_it_is_written_with(text: str) -> None:
    assert value_name(text) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("1e3", "1000"),
        ("1.50", "1.5"),
        (".5", "0.5"),
        ("1E-3", "0.001"),
        ("-0.0", "0"),
        ("1e999", "1E+999"),
        ("0e5", "0"),
        ("9" * 50 + ".0", "9" * 50),
        ("1e" + "9" * 30, "1e" + "9" * 30),
        ("007", "007"),
        ("00.5", "00.5"),
    ],
)
def test_names_of_numbers(text: str, name: str) -> None:
    assert value_name(text) == name


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["1", "2", "b"], ""),
        (["1.0", "2.0"], ""),
        (["01", "02", "11", "12"], ""),  # As many digits in each.
        (["1", "1.0", "b"], "1 and 1.0 are the same number and count as one"),
        (
            ["007", "7"],
            "leading zero, such as 007, are names, .* the others, such as 7, are numbers; .* write them alike",
        ),
        (["007", "07", "x"], "leading zero, such as 007, are names, each of its own; where"),
        (["007", "8", "8.0"], "8 and 8.0 are .*; those with a leading zero"),
    ],
)
def test_what_may_surprise(texts: list[str], told: str) -> None:
    assert re.search(told, surprises(texts)) if told else not surprises(texts)


SPELLINGS = st.tuples(
    st.sampled_from(["a", "b", "ab"]), st.sampled_from([str, str.upper, " {}".format, "{}\u3000".format])
)


@given(names=st.lists(SPELLINGS.map(lambda drawn: drawn[1](drawn[0])), unique=True))
def test_names_that_differ_in_case_and_blanks_alone_are_told_once(names: list[str]) -> None:
    groups = [[name for name in names if name.strip().lower() == word] for word in ("a", "b", "ab")]
    told = look_alike("classes", names)
    assert sorted(told) == sorted(
        f"the classes {', '.join(map(ascii, group))} differ in case, blanks or the form of letters alone"
        for group in groups
        if len(group) > 1
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_classes_that_look_alike_are_told_wherever_they_lie(suffix: str, tmp_path: Path) -> None:
    for split, classes in {"train": ["cat", "dog"], "test": ["Cat", "dog"]}.items():
        rows = {"x": [*range(20)], "label": [*classes] * 10}
        if suffix == "csv":
            lines = [f"{x},{label}\n" for x, label in zip(*rows.values(), strict=True)]
            (tmp_path / f"{split}.csv").write_text("x,label\n" + "".join(lines))
        else:
            parquet.write_table(pa.table(rows), tmp_path / f"{split}.parquet")
    config = RunConfig(task="tabular", data=str(tmp_path))
    told = "the classes 'cat', 'Cat' differ in case"
    with pytest.warns(RunWarning, match=told), pytest.warns(RunWarning, match="have no training rows"):
        data = task("tabular").load(config, 1, config.loss)
    assert data.train.labels.unique().tolist() == [0, 1]  # type: ignore[attr-defined]
    assert data.test.labels.unique().tolist() == [1, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_labels_are_read_once(loss: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("x,label\n" + "".join(f"{n},{n % 3}\n" for n in range(30)))
    read: list[str] = []
    texts = functools.cached_property(lambda column: read.append(column.name) or plain(column))
    plain = Column.texts.func
    texts.__set_name__(Column, "texts")
    monkeypatch.setattr(Column, "texts", texts)
    config = RunConfig(task="tabular", data=str(tmp_path / "a.csv"), loss=loss, held_out=3)
    data = task("tabular").load(config, 1, config.loss)
    assert read.count("label") == 1
    numbers = {1.0 * each for each in data.train.labels.tolist()}  # type: ignore[attr-defined]
    assert len(numbers) == 3


@given(values=st.lists(CLASSES, min_size=2, max_size=6, unique=True), quoted=st.booleans())
@settings(max_examples=40)
def test_labels_and_categories_go_by_one_rule_and_surprises_are_told_once(
    values: list[str], quoted: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("names") / "a.csv"
    names = {value_name(value) for value in values}
    fields = [f'"{value}"' if quoted or "," in value else value for value in values]
    path.write_text("x,c,label\n" + "".join(f"{n % 3},{field},{field}\n" for n in range(40) for field in fields))
    config = RunConfig(task="tabular", data=str(path), category_columns=("c",))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if len(names) < 2:
            with pytest.raises(SeekingError, match="all training rows are of one class"):
                task("tabular").load(config, 1, config.loss)
            return
        data = task("tabular").load(config, 1, config.loss)
    _, column = data.train.preparation["columns"]  # type: ignore[attr-defined]
    assert {*data.train.classes} == {*column["values"]} == names  # type: ignore[attr-defined]
    told = [str(warning.message) for warning in caught if issubclass(warning.category, RunWarning)]
    expected = {"label": [surprises(values)], "c": [surprises(values), *look_alike("categories", sorted(names))]}
    expected_by_column = [
        f"column {name} of a.csv: {text}" for name, texts in expected.items() for text in texts if text
    ]
    of_classes = look_alike("classes", in_order(names))
    assert sorted(told) == sorted([*expected_by_column, *(f"{path}: {text}" for text in of_classes)])


@given(names=st.permutations(["007", "07", "7", "10", "9", "-3"]))
def test_the_order_of_classes_does_not_depend_on_that_of_the_rows(names: list[str]) -> None:
    assert in_order(names) == ["-3", "007", "07", "7", "9", "10"]


def test_a_fraction_is_no_class_whatever_codes_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n" + "1,007\n2,1.50\n" * 9)
    config = RunConfig(task="tabular", data=str(tmp_path / "a.csv"))
    with pytest.raises(SeekingError, match=r"row 2 of a.csv: 1.50 is no class; to learn values, set loss to mse"):
        task("tabular").load(config, 1, config.loss)
