"""Which files of tables are read, and what cannot be read is named by column and row."""

import csv
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from users_tables import GOOD, load

from seeking import SeekingError
from seeking.data.table_files import read_files
from seeking.errors import RunWarning


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


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_stands_between_columns(delimiter: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeff" + GOOD.replace(",", delimiter), encoding="utf-8")
    columns = load(tmp_path / "a.csv").train.preparation["columns"]
    assert [(column["name"], column["kind"]) for column in columns] == [("age", "number"), ("city", "category")]


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n")
    with pytest.raises(SeekingError, match=r"a.csv: there are no training rows, only the names of columns; add rows"):
        load(tmp_path / "a.csv")


@given(
    rows=st.lists(st.tuples(*[st.text('a ,;"\n', max_size=6)] * 3), min_size=1, max_size=5),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    delimiter=st.sampled_from(",;"),
    mark=st.sampled_from(["", "\ufeff"]),
)
@settings(max_examples=50)
def test_quoted_values_are_read_as_they_are(
    rows: list[tuple[str, ...]], quoting: Any, delimiter: str, mark: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is in them: line breaks, quotes, and what stands between columns."""
    path = tmp_path_factory.mktemp("quoted") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark)
        csv.writer(file, quoting=quoting, delimiter=delimiter).writerows([("x", "y", "z"), *rows])
    (read,) = read_files(str(path), {}).values()
    assert [tuple(row.values()) for row in read.table.to_pylist()] == rows


@given(
    before=st.lists(st.sampled_from(["a,b,c", 'a,"b",c', '5" tall,b,c', '"a" or,b,c', 'a,"b\n""",c']), max_size=3),
    opened=st.lists(st.sampled_from(['a,b,"open', 'a,"open,c', '"open,b,c']), min_size=1, max_size=3),
    between=st.sampled_from(["", "a,b,c\n"]),
    end=st.sampled_from(["", "\n", "\n" + "a,b,c\n" * 9]),
)
@settings(max_examples=50)
def test_a_quote_that_is_not_closed_is_named_by_its_line(
    before: list[str], opened: list[str], between: str, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also one that the next such quote closes: no row is taken for part of a value."""
    path = tmp_path_factory.mktemp("opened") / "a.csv"
    begin = "\n".join(["x,y,z", *before, ""])
    path.write_text(begin + f"\n{between}".join(opened) + end)
    line = len(begin.splitlines()) + 1
    with pytest.raises(SeekingError, match=rf"a.csv: line {line}: the quote before 'open.* is .*closed.*; close it"):
        read_files(str(path), {})
