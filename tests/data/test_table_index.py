"""A column that only numbers the rows is left out, and one without a name refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from users_tables import CLASSES, ROWS, load

from seeking import SeekingError
from seeking.data.table import prepare_rows

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
