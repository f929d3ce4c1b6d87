"""Tables of a user's own: what their columns become, and which rows are trained and tested on."""

import json
import math
import string
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seeking import SeekingError
from seeking.checkpointing.run_dir import RunFolder
from seeking.cli import main
from seeking.data.table import prepare_rows
from seeking.data.table_columns import MISSING, Category, Number, Preparation
from seeking.data.table_files import read_files
from seeking.errors import RunWarning
from seeking.experiments.config import RunConfig
from seeking.experiments.tasks import task

ROWS = 24
NAMES = st.text(string.ascii_letters + "äß_ -", min_size=1, max_size=6).map(str.strip).filter(bool)
NUMBERS = st.lists(st.none() | st.floats(-1e6, 1e6, width=32), min_size=ROWS, max_size=ROWS)
WORDS = st.lists(st.none() | st.sampled_from(["red", "green", 'b"l,ue', "ü"]), min_size=ROWS, max_size=ROWS)
COLUMNS = st.dictionaries(NAMES.filter(lambda name: name != "label"), NUMBERS | WORDS, min_size=1, max_size=4)
CLASSES = ["cat", "dog"] * (ROWS // 2)


def write(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    (pa.csv.write_csv if path.suffix == ".csv" else pa.parquet.write_table)(table, path)
    return path


def load(path: Path | str, **options: Any) -> Any:
    config = RunConfig(task="tabular", data=str(path), **options)
    return task("tabular").load(config, 1, config.loss)


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


GOOD = "age,city,label\n" + "1,Rome,yes\n2,Bern,no\n" * 8
WITHOUT_CLASSES = GOOD.replace(",label", "").replace(",yes", "").replace(",no", "")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (GOOD + "old,Rome,yes\n", {}, r"column age, row 17 of a.csv: 'old' is not a number, as .* others are; correct"),
        (GOOD + "1e999,Rome,yes\n", {}, "column age, row 17 of a.csv: inf is infinite or too large"),
        (GOOD + "3,Rome,\n", {}, "column label, row 17 of a.csv: there is no class .of 1 of 17 rows"),
        (GOOD + "3,Rome\n", {}, "a.csv cannot be read .*row 17: Expected 3 columns, got 2"),
        (GOOD, {"label_column": "lable"}, "unknown label_column of a.csv 'lable'; did you mean label"),
        (GOOD.replace("label", "y"), {}, "none of the columns is called label .* in label_column: age, city, y"),
        (GOOD, {"ignore_columns": ("agee",)}, "unknown column of a.csv 'agee'; did you mean age"),
        (GOOD, {"category_columns": ("agee",)}, "unknown column of a.csv 'agee'; did you mean age"),
        (GOOD, {"ignore_columns": ("age", "label")}, "label is the label column of a.csv, .* cannot be in ignore_col"),
        (
            GOOD,
            {"category_columns": ("label",)},
            "label is the label column of a.csv, .* cannot be in category_columns",
        ),
        (GOOD, {"label_column": "city", "category_columns": ("city",)}, "city is the label column .* name another col"),
        (
            GOOD,
            {"ignore_columns": ("age", "city"), "category_columns": ("city",)},
            "column city is in ignore_columns and in category_columns; leave it out of one",
        ),
        (GOOD, {"ignore_columns": ("age", "city")}, "no column but label and those that are ignored"),
        (GOOD.replace("city", "age"), {}, "several columns are called age; rename"),
        ("1,2,3\n" * 9, {}, r"its first line holds numbers \(1, 2, 3\), not the names of columns"),
        ("", {}, "there is nothing in it"),
        ("\n\na,label\n1,k\n", {}, "its first line, which names the columns, is empty; remove it"),
        (
            "a,label\n" + "1,0.5\n2,1.5\n" * 5,
            {},
            "column label, row 1 of a.csv: 0.5 is no class; to learn values, set loss to mse",
        ),
        (
            "a,label\n" + "".join(f"1,k{n}\n" for n in range(30)),
            {},
            "30 training rows have 30 classes.* set loss to mse",
        ),
        ("a,label\n" + "1,k\n" * 9, {}, "all training rows are of one class, k; there is nothing to learn"),
        (
            "name,label\n" + "".join(f"n{n},{n % 2}\n" for n in range(40)),
            {},
            "column name has 32 different values in 32 training rows, such as 'n.*' in row .* of a.csv: too many",
        ),
    ],
)
def test_what_cannot_be_read_is_named_by_column_and_row(
    content: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(SeekingError, match=message):
        load(path, **options)


def test_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes((GOOD + "3,Zürich,yes\n").encode("latin-1"))
    with pytest.raises(
        SeekingError, match=r"a.csv cannot be read \(.*column #1: row 17: .*invalid UTF8.*; save it as UTF-8"
    ):
        load(tmp_path)
    (tmp_path / "a.csv").write_bytes(GOOD.replace("city", "Stätte").encode("latin-1"))
    with pytest.raises(SeekingError, match="save it as UTF-8"):
        load(tmp_path)


def test_rows_are_named_by_their_file(tmp_path: Path) -> None:
    for number, value in ((1, "4"), (2, "x")):
        (tmp_path / f"train-{number}.csv").write_text(GOOD + f"{value},Rome,yes\n")
    with pytest.raises(SeekingError, match=r"column age, row 17 of train-2.csv: 'x' is not a number"):
        load(tmp_path)
    (tmp_path / "train-2.csv").write_text(GOOD.replace("city", "town"))
    with pytest.raises(SeekingError, match=r"train-1.csv and train-2.csv have not the same columns.*city, town"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("files", "options", "used"),
    [
        (["a"], {}, {"training": 13, "test": 3}),
        (["train", "test"], {}, {"training": 16, "test": 16}),
        (["train", "val"], {}, {"training": 16, "test": 16}),
        (["train", "test"], {"validation": 0.25}, {"training": 12, "test": 4, "not used": 16}),
        (["train", "unlabelled test"], {}, {"training": 13, "test": 3, "not used": 16}),
        (["train", "test"], {"held_out": 5}, {"training": 11, "test": 16, "held out for conditions": 5}),
        (["one", "two"], {"train_split": "two.csv", "test_split": "one.csv"}, {"training": 16, "test": 16}),
        (["train", "test"], {"max_train_samples": 9, "max_eval_samples": 2}, {"training": 9, "test": 2}),
    ],
)
def test_which_rows_are_trained_and_tested_on(
    files: list[str], options: dict[str, Any], used: dict[str, int], tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / f"{name}.csv").write_text(WITHOUT_CLASSES if "unlabelled" in name else GOOD)
    data = load(tmp_path, **options)
    assert {split.use: split.images for split in data.splits} == used
    first, second = (load(tmp_path, **options, seed=seed) for seed in (0, 1))
    assert torch.equal(first.train.values, second.train.values)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            ["train", "unlabelled"],
            {"test_split": "unlabelled.csv"},
            "unlabelled.csv has no classes .column label",
        ),
        (["a", "b"], {"train_split": "c.csv"}, "unknown train_split of .*'c.csv'; did you mean"),
        (["a"], {"train_split": "a.csv", "test_split": "a.csv"}, "have a file in common"),
        (["a"], {"test_split": "a.csv"}, "its only training file is chosen as test_split"),
    ],
)
def test_splits_that_there_are_not(files: list[str], options: dict[str, Any], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / f"{name}.csv").write_text(WITHOUT_CLASSES if "unlabelled" in name else GOOD)
    with pytest.raises(SeekingError, match=message):
        load(tmp_path, **options)


def test_kinds_of_files(tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match=r"a CSV or parquet file, or a folder .*; here is nothing"):
        load(tmp_path)
    with pytest.raises(SeekingError, match=r"nowhere.csv: no such file or folder$"):
        load(tmp_path / "nowhere.csv")
    with pytest.raises(SeekingError, match=r"nowhere.csv: no such file or folder in /.*; give its path"):
        load(Path("nowhere.csv"))
    with pytest.raises(SeekingError, match=r"/nowhere: no such folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "a.tsv").write_text("label\tx\n" + "a\t1\nb\t2\n" * 4)
    (tmp_path / "readme.txt").write_text("rows")
    with pytest.warns(RunWarning, match="not used are 1 .txt"):
        data = load(tmp_path)
    assert [column["name"] for column in data.train.preparation["columns"]] == ["x"]
    features = datasets.Features({"x": datasets.Value("float32"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"x": [float(n) for n in range(10)], "label": [n % 2 for n in range(10)]}
    path = tmp_path / "named.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    assert load(path).train.classes == ("no", "yes")
    (tmp_path / "a.tsv").rename(tmp_path / "a.csv")
    with pytest.raises(SeekingError, match=r"here is .csv and .parquet"):
        load(tmp_path)


INDEXED = st.integers(-5, 5).map(lambda start: pd.RangeIndex(start, start + ROWS)) | st.permutations(range(ROWS)).map(
    pd.Index
)


@given(index=INDEXED, again=st.integers(0, 2), suffix=st.sampled_from([".csv", ".parquet"]))
@settings(max_examples=14)
def test_the_row_index_of_pandas_is_left_out_and_told_and_nothing_else_is(
    index: Any, again: int, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An index in another order might be data: it is refused where it has no name, and used where it has one."""
    path = tmp_path_factory.mktemp("index") / f"a{suffix}"
    frame = pd.DataFrame({"x": [n * 7 % 5 for n in range(ROWS)], "label": CLASSES}, index=index)
    for _ in range(again):
        frame.to_csv(path.with_suffix(".old"))
        frame = pd.read_csv(path.with_suffix(".old"))
    (frame.to_csv if suffix == ".csv" else frame.to_parquet)(path)
    counting = {name for name in frame if name.startswith("Unnamed") and (np.diff(frame[name]) == 1).all()}
    if suffix == ".csv" and (np.diff(frame.index) != 1).any():
        with pytest.raises(SeekingError, match=r"a.csv: column 1 has no name .a row index needs none, but this one"):
            load(path)
        return
    data = load(path)
    used = [column["name"] for column in data.train.preparation["columns"]]
    assert {*used} == {*frame.columns} - {"label", *counting}
    no_name = "column 1, which has no name" if suffix == ".csv" else "__index_level_0__ of pandas"
    has_index = suffix == ".csv" or not isinstance(frame.index, pd.RangeIndex)  # Which parquet files do not hold.
    told = [no_name] * has_index + [name for name in frame if name in counting]
    assert data.describe().partition("; left out as a row index: ")[2] == ", ".join(told)


@given(
    names=st.lists(st.sampled_from(["", " ", "a", "b", "c"]), min_size=2, max_size=5).filter(
        lambda names: not any(map(str.strip, names)) or len({*filter(None, names)}) == len([*filter(None, names)])
    ),
    suffix=st.sampled_from([".csv", ".tsv"]),
)
@settings(max_examples=25)
def test_a_column_without_a_name_is_refused_by_its_place(
    names: list[str], suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, delimiter = tmp_path_factory.mktemp("names") / f"a{suffix}", "\t" if suffix == ".tsv" else ","
    rows = [delimiter.join(["label", *names])] + [delimiter.join([name] + ["1"] * len(names)) for name in CLASSES]
    path.write_text("\n".join(rows))
    nameless = [place for place, name in enumerate(names, 2) if not name.strip()]
    if nameless:
        with pytest.raises(SeekingError, match=rf"a{suffix}: column {nameless[0]} has no name; give it one, and name"):
            load(path)
    else:
        assert len(load(path).train.preparation["columns"]) == len(names)


def test_which_column_is_a_row_index_the_training_rows_say(tmp_path: Path) -> None:
    """In one row, any number counts up."""
    (tmp_path / "train.csv").write_text("Unnamed: 0,label\n" + "3,a\n1,b\n" * 8)
    (tmp_path / "test.csv").write_text("Unnamed: 0,label\n1,b\n")
    data = load(tmp_path)
    assert [column["name"] for column in data.train.preparation["columns"]] == ["Unnamed: 0"]
    assert prepare_rows(data.train.preparation, tmp_path / "test.csv").shape == (1, 1)


def test_a_row_index_counts_anew_in_each_file_and_is_used_if_it_is_named(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"train-{number}.csv").write_text(
            "Unnamed: 0,x,label\n" + "".join(f"{n},{n % 3},{n % 2}\n" for n in range(9))
        )
    data = load(tmp_path)
    assert [column["name"] for column in data.train.preparation["columns"]] == ["x"]
    assert data.describe().endswith("2 classes; left out as a row index: Unnamed: 0")
    data = load(tmp_path, category_columns=("Unnamed: 0",))
    assert [column["name"] for column in data.train.preparation["columns"]] == ["Unnamed: 0", "x"]


def test_splits_by_name_and_as_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes go by their names, in whatever format the data set was; rows are named by their split."""
    features = datasets.Features({"x": datasets.Value("float32"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"x": [float(n) for n in range(10)], "label": [n % 2 for n in range(9)] + [-1]}
    whole = datasets.Dataset.from_dict(rows, features=features)
    splits = {"training": whole.select(range(9)), "dev": whole.select(range(4)), "unlabelled": whole.select([9, 9])}
    held = datasets.DatasetDict(splits).with_format("numpy", columns=["x"])
    held.save_to_disk(tmp_path / "saved")
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset: held.with_format(None))
    for name in (str(tmp_path / "saved"), "someone/table"):
        data = load(name)
        assert data.train.classes == ("no", "yes")
        uses = [(split.use, split.source, split.images) for split in data.splits]
        assert uses == [("training", "rows of training", 9), ("test", "rows of dev", 4), ("not used", "unlabelled", 2)]
        assert {split.use: split.source for split in load(name, test_split="training", train_split="dev").splits} == {
            "training": "rows of dev",
            "test": "rows of training",
            "not used": "unlabelled",
        }
        with pytest.raises(SeekingError, match=f"column label, row 1 of unlabelled of {name}: there is no class"):
            load(name, train_split="unlabelled")
        with pytest.raises(SeekingError, match=f"unknown .*_split of {name} 'devil'; did you mean dev"):
            load(name, train_split="devil")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "someone/table",
            "someone/table: no such folder in .*, and the hub cannot be reached .*; check the network",
        ),
        ("table", "data set table: no such folder in .*, and the hub cannot be reached"),
        ("wines", "unknown data set 'wines'; did you mean wine"),
        ("", "data is empty; give the name of a table, a file or a folder"),
        ("./somewhere", "data set ./somewhere: no such folder"),
    ],
)
def test_the_hub_out_of_reach_is_told(name: str, message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        load(name)


@pytest.mark.parametrize("kind", ["images", "tabular", "text"])
@pytest.mark.parametrize("name", ["~nobody-of-this-name/data", "~nobody-of-this-name/data.csv", "~/nowhere.csv"])
def test_the_home_folder_of_nobody_is_no_traceback(kind: Any, name: str) -> None:
    config = RunConfig(task=kind, data=name)
    with pytest.raises(SeekingError, match=f"{name}: (no such|cannot be read)"):
        task(kind).load(config, 1, config.loss)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_stands_between_columns(delimiter: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeff" + GOOD.replace(",", delimiter), encoding="utf-8")
    columns = load(tmp_path / "a.csv").train.preparation["columns"]
    assert [(column["name"], column["kind"]) for column in columns] == [("age", "number"), ("city", "category")]


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


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n")
    with pytest.raises(SeekingError, match=r"a.csv: there are no training rows, only the names of columns; add rows"):
        load(tmp_path / "a.csv")


def test_new_rows_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    preparation = load(tmp_path / "a.csv").train.preparation
    (tmp_path / "new.csv").write_text("more,city,age\n1,Bern,2\n1,Rome,many\n")
    with pytest.raises(SeekingError, match=r"column age, row 2 of new.csv: 'many' is not a number, as all values of"):
        prepare_rows(preparation, tmp_path / "new.csv")
    (tmp_path / "new.csv").write_text("city\nBern\n")
    with pytest.raises(SeekingError, match=r"new.csv has no column age, which the training rows have"):
        prepare_rows(preparation, tmp_path / "new.csv")
    rows = read_files(str(tmp_path / "a.csv"), {})["train"]
    assert rows.select(np.array([3, 1])).select([1]).place(0) == "row 2 of a.csv"


VALUES = st.lists(st.integers(-1000, 1000), min_size=ROWS, max_size=ROWS).filter(lambda values: len({*values}) > 9)


@given(values=VALUES, factor=st.sampled_from([-3.0, 0.01, 1000.0]), offset=st.integers(-50, 50))
@settings(max_examples=25)
def test_values_are_learnt_alike_in_any_unit(
    values: list[int], factor: float, offset: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Scaled by the training rows; and back to the unit of the column by what the summary has."""
    folder = tmp_path_factory.mktemp("values")
    columns: list[dict[str, Any]] = [
        {"x": [n % 7 for n in range(ROWS)], "label": [scale * value + shift for value in values]}
        for scale, shift in ((1, 0), (factor, offset))
    ]
    original, scaled = (load(write(folder / f"{number}.csv", each), loss="mse") for number, each in enumerate(columns))
    sign = 1 if factor > 0 else -1
    for part in ("train", "test"):
        torch.testing.assert_close(
            getattr(original, part).labels, sign * getattr(scaled, part).labels, rtol=1e-4, atol=1e-4
        )
    labels = original.train.labels.double()
    assert abs(float(labels.mean())) < 1e-6 and float(labels.std()) == pytest.approx(1, abs=1e-6)
    target = Preparation.from_dict(json.loads(json.dumps(original.train.preparation))).target
    assert target
    learnt = [*original.train.labels.tolist(), *original.test.labels.tolist()]
    assert sorted(target.mean + target.deviation * value for value in learnt) == pytest.approx(sorted(values), abs=1e-2)
    assert scaled.deviation == pytest.approx(abs(factor) * original.deviation)
    assert original.model_arguments["num_classes"] == 1 and "values" in original.describe()
    assert {split.classes for split in original.splits} == {None}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["1", "", "3"] * 8, "column label, row 2 of a.csv: there is no value .of 8 of 24 rows."),
        (["1", "two", "3"] * 8, "row 2 of a.csv: 'two' is not a number, as loss mse needs.* loss to cross_entropy"),
        (["1", "inf", "3"] * 8, "row 2 of a.csv: 'inf' is not a number"),
        (["1", "1e99", "3"] * 8, "row 2 of a.csv: 1e.99 is infinite or too large"),
        (["7"] * ROWS, "all training rows have the value 7; there is nothing to learn"),
    ],
)
def test_what_is_no_value_is_named(targets: list[str], message: str, tmp_path: Path) -> None:
    rows = "".join(f"{number},{target}\n" for number, target in enumerate(targets))
    (tmp_path / "a.csv").write_text("x,label\n" + rows)
    with pytest.raises(SeekingError, match=message):
        load(tmp_path, loss="mse")


def test_whole_numbers_that_may_be_values_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n" + "".join(f"{n},{n % 60}\n" for n in range(200)))
    with pytest.warns(RunWarning, match="60 whole numbers, 0 to 59, count as classes; if .* values, set loss to mse"):
        load(tmp_path)
    load(tmp_path, loss="mse")


@pytest.mark.slow
def test_models_and_data_of_another_task_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    data = ["train", "--data", str(tmp_path / "a.csv"), "--output", str(tmp_path / "out")]
    assert main([*data, "--task", "tabular"]) == 2
    assert "resnet8 is a model of --task images, but the task is tabular" in capsys.readouterr().err
    assert main([*data, "--base", "mlp-4", "--motivated", "mlp-8"]) == 2
    assert "mlp-4 is a model of --task tabular, but the task is images" in capsys.readouterr().err
    assert main([*data, "--loss", "mse"]) == 2
    assert "the task is images, whose data are not for --loss mse; give --task tabular" in capsys.readouterr().err
    assert main(data) == 2
    assert "not a folder or a parquet file; for a table, give --task tabular" in capsys.readouterr().err


@pytest.mark.slow
def test_commands_learn_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table, the figure and the list of runs are by RMSE, in the unit of the column."""
    table, output = tmp_path / "a.csv", tmp_path / "out"
    table.write_text("age,price\n" + "".join(f"{n % 7},{1000.5 + 100 * (n % 7)}\n" for n in range(120)))
    models = ["--base", "mlp-4", "--motivated", "mlp-8", "--epochs", "4", "--batch-size", "8"]
    options = ["--task", "tabular", "--loss", "mse", "--label-column", "price", "--data", str(table), *models]
    assert main(["compare", *options, "--seeds", "2", "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "RMSE, 2 seeds" in shown and "RMSE base" in shown and (output / "comparison.png").exists()
    gains = json.loads((output / "comparison.json").read_text())["models"]
    assert gains["base"]["alone"]["mean"] < 200  # Of values that deviate by 200.
    summary = json.loads((output / "pair-seed0" / "summary.json").read_text())
    assert summary["best"]["base"]["rmse"] == pytest.approx(
        summary["preparation"]["target"]["deviation"] * summary["best"]["base"]["loss"] ** 0.5
    )
    rows = [json.loads(row) for row in (output / "pair-seed0" / "metrics.jsonl").read_text().splitlines()]
    every = [row["base"]["rmse"] for row in rows if row["kind"] == "eval"]
    assert summary["best"]["base"]["rmse"] == min(every)  # The lowest is best.
    assert main(["show", str(output)]) == 0


@pytest.mark.parametrize("data", ["a.csv", "wine"])
def test_columns_are_told_of_before_a_run_is_overwritten(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that contradict each other are refused, and options that are not used are told."""

    def stop(*given: Any, **options: Any) -> None:
        raise SeekingError("here it would begin")

    monkeypatch.setattr("seeking.run_commands.trainer", stop)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(GOOD)
    with RunFolder("out") as folder:
        folder.create({}, None)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    options = ["--label-column", "city", "--ignore-columns", "city"] if data == "a.csv" else ["--label-column", "zzz"]
    models = ["--task", "tabular", "--base", "mlp-4", "--motivated", "mlp-8", "--output", "out", "--overwrite"]
    assert main(["train", "--data", data, *models, *options]) == 2
    told = capsys.readouterr().err.splitlines()
    if data == "wine":
        assert told[0] == "seeking: --label-column is not used by --task tabular with data wine"
        assert told[1:] == ["seeking: here it would begin"]
    else:
        (line,) = told
        assert line.startswith("seeking: city is the label column of a.csv, so it cannot be in --ignore-columns")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "compare"])
def test_commands_train_on_a_users_table(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_text(
        "age,city,answer\n" + "".join(f"{n % 7},{'Rome' if n % 2 else 'Bern'},{n % 2}\n" for n in range(120))
    )
    output = tmp_path / "out"
    models = ["--base", "mlp-4", "--motivated", "mlp-8", "--epochs", "1"]
    arguments = [command, "--task", "tabular", *models, "--label-column", "answer", "--category-columns", "city"]
    arguments += ["--seeds", "1"] if command == "compare" else []
    assert main([*arguments, "--data", str(tmp_path / "train.csv"), "--output", str(output)]) == 0
    if command == "train":
        assert "rows of train.csv, held out" in capsys.readouterr().out
        summary = json.loads((output / "summary.json").read_text())
        assert prepare_rows(summary["preparation"], tmp_path / "train.csv").shape == (120, 3)
        assert main([command, "--output", str(output), "--resume", "--epochs", "2"]) == 0


def test_a_subset_of_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for one of the hub: a folder with several configurations, as ``datasets`` reads both."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "several"
    card = "---\nconfigs:\n"
    for name in ("small", "larger"):
        (folder / name).mkdir(parents=True)
        for split, count in (("train", len(name)), ("test", 2)):
            rows = "".join(f"{n}.5,{n % 2}\n" for n in range(count))
            (folder / name / f"{split}.csv").write_text(f"x,label\n{rows}")
        card += f"- config_name: {name}\n  data_dir: {name}\n"
    (folder / "README.md").write_text(card + "---\n")
    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset: real(str(folder), subset))
    for subset in ("small", "larger"):
        uses = [(split.use, split.images) for split in load("someone/several", subset=subset).splits]
        assert uses == [("training", len(subset)), ("test", 2)]
    with pytest.raises(SeekingError, match=r"available configs: \['small', 'larger'\]; name one with subset"):
        load("someone/several")
    with pytest.raises(SeekingError, match=r"'smal' not found. Available: .*; name one with subset"):
        load("someone/several", subset="smal")
    with pytest.raises(SeekingError, match=r"subset is small, but .*several is on this machine"):
        load(str(folder), subset="small")
