"""What the columns of a table become: numbers, categories and missing values."""

import json
import math
import string
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from users_tables import CLASSES, GOOD, ROWS, load, write

from seeking import SeekingError
from seeking.data.table import prepare_rows
from seeking.data.table_columns import MISSING, Category, Number, Preparation
from seeking.data.table_files import read_files
from seeking.errors import RunWarning

NAMES = st.text(string.ascii_letters + "äß_ -", min_size=1, max_size=6).map(str.strip).filter(bool)
NUMBERS = st.lists(st.none() | st.floats(-1e6, 1e6, width=32), min_size=ROWS, max_size=ROWS)
WORDS = st.lists(st.none() | st.sampled_from(["red", "green", 'b"l,ue', "ü"]), min_size=ROWS, max_size=ROWS)
COLUMNS = st.dictionaries(NAMES.filter(lambda name: name != "label"), NUMBERS | WORDS, min_size=1, max_size=4)


def saved(columns: dict[str, Any], path: Path) -> Path:
    datasets.Dataset(pa.table(columns)).save_to_disk(path)
    return path


def load_by_name(columns: dict[str, Any], **options: Any) -> Any:
    """As if the table were on the hub."""
    held = datasets.DatasetDict({"train": datasets.Dataset(pa.table(columns))})
    with mock.patch("datasets.load_dataset", return_value=held):
        return load("someone/table", **options)


def has_value(values: Sequence[Any]) -> bool:
    return any(value is not None for value in values)


@pytest.mark.slow
@given(columns=COLUMNS)
@settings(max_examples=20)
def test_a_table_is_the_same_in_any_file_and_in_any_order_of_columns(
    columns: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And new rows are prepared by the summary as the run's were; numbers are scaled, categories are 0 or 1."""
    folder = tmp_path_factory.mktemp("table")
    columns = {name: values for name, values in columns.items() if has_value(values)} | {"label": CLASSES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)  # A category may be in the test rows alone.
        if len(columns) == 1:
            with pytest.raises(SeekingError, match="no column but label"):
                load(write(folder / "a.csv", columns))
            return
        files = [write(folder / name, columns) for name in ("a.csv", "a.parquet")]
        first, *others = map(load, files)
        others += [load(saved(columns, folder / "saved")), load_by_name(columns)]
        turned = load(write(folder / "b.csv", dict(reversed(columns.items()))))
        preparation = json.loads(json.dumps(first.train.preparation))
        everything = prepare_rows(preparation, write(folder / "new.csv", columns))
    for part in ("train", "test"):
        for other in others:
            torch.testing.assert_close(getattr(first, part).values, getattr(other, part).values, rtol=0, atol=1e-5)
            assert torch.equal(getattr(first, part).labels, getattr(other, part).labels)
    assert {str(column) for column in turned.train.preparation["columns"]} == {
        str(column) for column in first.train.preparation["columns"]
    }
    rows = {tuple(row) for row in everything.tolist()}
    assert {tuple(row) for part in (first.train, first.test) for row in part.values.tolist()} == rows
    place = 0
    for column in Preparation.from_dict(preparation).columns:
        values = first.train.values[:, place : place + column.width].double()
        if isinstance(column, Number):
            known = [value for value in columns[column.name] if value is not None]
            assert abs(values[:, 0].sum()) < 1e-4 * ROWS or not known
            assert set(values[:, 1:].flatten().tolist()) <= {0.0, 1.0}
        else:
            assert ((values == 0) | (values == 1)).all() and (values.sum(1) <= 1).all()
        place += column.width
    assert place == first.model_arguments["in_features"]


def test_what_missing_and_unknown_values_become(tmp_path: Path) -> None:
    train = {
        "age": [1.0, 3.0, None, 2.0] * 3,
        "height": [1, 2, 3, 2] * 3,
        "colour": ["red", None, "blue", "red"] * 3,
        "code": [7, 8, 8, 7] * 3,
        "label": [1, 0, 10, 2] * 3,
    }
    new = {"code": [8, 9, None], "colour": ["green", "blue", ""], "height": [None, 2, 3], "age": [None, 2.0, 3.0]}
    write(tmp_path / "train.csv", train)
    write(tmp_path / "test.csv", {**new, "label": [0, 1, 11]})
    with pytest.warns(RunWarning) as told:
        data = load(tmp_path, category_columns=("code",))
    texts = " ".join(str(warning.message) for warning in told)
    assert "column colour of test.csv: 1 rows have values that no training row has" in texts
    assert "green (such as row 1 of test.csv)" in texts and "1 of 5 classes have no training rows: 11" in texts
    assert data.train.classes == ("0", "1", "2", "10", "11")
    expected = {  # age, is its missing, height, blue, red, colour is missing, 7, 8
        (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
        (1.1547, 0.0, 1.35401, 0.0, 0.0, 1.0, 0.0, 0.0),
    }
    assert {tuple(round(value, 5) for value in row) for row in data.test.values.tolist()} == expected
    assert [split.source for split in data.splits] == ["rows of train.csv", "rows of test.csv"]
    assert "5 columns" not in data.describe() and "4 columns (8 numbers), 5 classes" in data.describe()


@pytest.mark.parametrize("missing", sorted(MISSING))
def test_words_for_missing_values(missing: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n, c ,label\n" + f"1,a,x\n{missing.upper()}, {missing} ,y\n3,b,x\n" * 5)
    numbers, words = load(path, validation=0.3).train.preparation["columns"]
    assert (numbers["kind"], words["kind"]) == ("number", "category")
    assert (words["values"], words["missing"]) == (("a", "b"), True)


def test_kinds_of_columns(tmp_path: Path) -> None:
    columns = {
        "bool": [True, False] * 8,
        "small": pa.array([1, 2] * 8, pa.int8()),
        "exact": pa.array([1, 2] * 8).cast(pa.decimal128(30, 2)),
        "dictionary": pa.array(["a", "b"] * 8).dictionary_encode(),
        "view": pa.array(["a", "b"] * 8, pa.string_view()),
        "constant": [0.1] * 16,
        "nothing": pa.nulls(16),
        "nan": [math.nan, 1.0] * 8,
        "label": [0.0, 1.0] * 8,
    }
    data = load(write(tmp_path / "a.parquet", columns))
    kinds = [type(column) for column in Preparation.from_dict(data.train.preparation).columns]
    assert kinds == [Category, Number, Number, Category, Category, Number, Number, Number]
    assert data.train.classes == ("0", "1")
    assert torch.isfinite(data.train.values).all()
    assert (data.train.values[:, 8:10] == 0).all()  # What is constant, or nowhere known.
    columns["when"] = pa.array([0, 1] * 8, pa.timestamp("s"))
    with pytest.raises(SeekingError, match=r"column when of a.parquet holds timestamp\[.*, neither numbers nor text"):
        load(write(tmp_path / "a.parquet", columns))
    load(tmp_path / "a.parquet", ignore_columns=("when",))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_whole_numbers_are_the_same_categories_in_any_form(suffix: str, tmp_path: Path) -> None:
    """A column of whole numbers of which some are missing is often written as 1.0 and 2.0."""
    write(tmp_path / f"train{suffix}", {"c": [1, -2, 30, 4] * 4, "label": ["a", "b"] * 8})
    text = "c,label\n1.0,a\n,b\n-2.,a\n30.00,b\n4,a\n"
    if suffix == ".csv":
        (tmp_path / "test.csv").write_text(text)
    else:
        write(tmp_path / "test.parquet", {"c": [1.0, None, -2.0, 30.0, 4.0], "label": [*"ababa"]})
    data = load(tmp_path, category_columns=("c",))
    assert data.train.preparation["columns"][0]["values"] == ("-2", "1", "30", "4")
    assert data.test.values.sum(0).tolist() == [1, 1, 1, 1] and data.test.values.sum() == 4


BOOLEANS: dict[str, Callable[[bool], Any]] = {
    "bool.parquet": bool,
    "text.parquet": str,
    "pandas.csv": str,
    "lower.csv": lambda flag: str(flag).lower(),
    "upper.csv": lambda flag: str(flag).upper(),
}


@given(
    flags=st.permutations([True, False, None] * (ROWS // 3)),
    forms=st.lists(st.sampled_from([*BOOLEANS]), min_size=2, max_size=2),
)
@settings(max_examples=25)
def test_booleans_are_the_same_categories_and_classes_in_any_form(
    flags: list[bool | None], forms: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Those of which the column holds nothing else; all else goes by its letters."""
    folder = tmp_path_factory.mktemp("booleans")
    train, new = (
        write(
            folder / f"{number}-{form}",
            {
                "c": [None if flag is None else BOOLEANS[form](flag) for flag in flags],
                "label": [BOOLEANS[form](not number % 2) for number in range(ROWS)],
            },
        )
        for number, form in enumerate(forms)
    )
    data = load(train)
    (column,) = data.train.preparation["columns"]
    assert column["values"] == data.train.classes == ("False", "True")
    expected = [[flag is False, flag is True, flag is None] for flag in flags]
    assert prepare_rows(data.train.preparation, new).tolist() == expected


def test_words_for_booleans_among_others_are_text(tmp_path: Path) -> None:
    words = ["TRUE", "True", "false", "maybe"]
    with pytest.warns(RunWarning, match="'TRUE', 'True' differ in case"):
        data = load(write(tmp_path / "a.csv", {"c": words * 6, "label": words * 6}))
    (column,) = data.train.preparation["columns"]
    assert [*column["values"]] == [*data.train.classes] == words
    assert prepare_rows(data.train.preparation, write(tmp_path / "b.parquet", {"c": [True]})).tolist() == [[0, 1, 0, 0]]


def test_new_rows_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    preparation = load(tmp_path / "a.csv").train.preparation
    (tmp_path / "new.csv").write_text("more,city,age\n1,Bern,2\n1,Rome,many\n")
    with pytest.raises(SeekingError, match=r"column age, row 2 of new.csv: 'many' is not .*, or train with the"):
        prepare_rows(preparation, tmp_path / "new.csv")
    (tmp_path / "new.csv").write_text("city\nBern\n")
    with pytest.raises(SeekingError, match=r"new.csv has no column age, which the training rows have"):
        prepare_rows(preparation, tmp_path / "new.csv")
    whole = {"preparation": dict(preparation)}
    for wrong in (whole, {**preparation, "columns": [{"kind": "date", "name": "x"}]}, {**preparation, "columns": 3}):
        with pytest.raises(SeekingError, match=r"not a preparation of a table.*; give preparation of a run's"):
            prepare_rows(wrong, tmp_path / "new.csv")
    rows = read_files(str(tmp_path / "a.csv"), {})["train"]
    assert rows.select(np.array([3, 1])).select([1]).place(0) == "row 2 of a.csv"


DAMAGES: list[tuple[tuple[Any, ...], Any]] = [
    (("columns",), []),
    (("columns",), "age"),
    (("label",), 5),
    (("label",), "age"),  # Which is a column.
    (("classes",), "yes"),
    (("classes",), ["yes", "yes"]),
    (("classes",), [0, 1]),
    (("target",), {"mean": math.nan, "deviation": 1.0}),
    *((("columns", 0, key), value) for key in ("mean", "deviation") for value in (math.nan, math.inf, 10**400, "5")),
    (("columns", 0, "deviation"), -1.0),
    (("columns", 0, "name"), "city"),
    (("columns", 1, "values"), "blue"),
    (("columns", 1, "values"), ["blue", "blue"]),
    (("columns", 1, "values"), ["blue", ["x"]]),
    *((("columns", place, "missing"), value) for place in (0, 1) for value in ("false", None)),
    *((("columns", place, key), value) for place in (0, 1) for key in ("name", "kind") for value in (5, None, [])),
]


@pytest.mark.parametrize(("where", "value"), DAMAGES, ids=lambda part: str(part)[:30])
def test_a_damaged_preparation_is_refused(where: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    preparation = json.loads(json.dumps(load(tmp_path / "a.csv").train.preparation))
    assert json.loads(json.dumps(Preparation.from_dict(preparation).as_dict())) == preparation
    damaged = preparation
    for key in where[:-1]:
        damaged = damaged[key]
    damaged[where[-1]] = value
    with pytest.raises(SeekingError, match=r"^not a preparation of a table \(.*\); give preparation of a run's"):
        Preparation.from_dict(preparation)
