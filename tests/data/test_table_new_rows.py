"""New rows for a model of an earlier run: which files they may be in, and what else may be in these."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from users_tables import GOOD, WITHOUT_CLASSES, load, write

from seeking import SeekingError
from seeking.data.table import prepare_rows


@pytest.fixture(scope="module")
def preparation(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("trained") / "a.csv"
    path.write_text(GOOD)
    return load(path).train.preparation


AGES, CITIES = [1, 2, 7], ["Rome", "Bern", "Bern"]
OTHERS: dict[str, Any] = {
    "when": pa.array([0, 1, 2], pa.timestamp("s")),
    "how long": pa.array([0, 1, 2], pa.duration("s")),
    "all": [[1], [], [2, 3]],
    "bytes": [b"\xff", b"", b"a"],
    "nothing": pa.nulls(3),
    "pairs": pa.array([[("a", 1)], [], []], pa.map_(pa.string(), pa.int8())),
    "label": ["yes", "", "perhaps"],
    "__index_level_0__": [7, 1, 3],
}


@given(
    names=st.lists(st.sampled_from(["", " ", "1", "x", "label", "Unnamed: 0"]), max_size=6),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=25)
def test_columns_that_a_model_does_not_use_refuse_no_csv_file(
    names: list[str], order: Any, preparation: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever they hold, and if they have no name, such as the index of a sample, or two have the same."""
    columns = [["age", *map(str, AGES)], ["city", *CITIES], *([name, "5", "\xfc", ""] for name in names)]
    order.shuffle(columns)
    lines = map(",".join, zip(*columns, strict=True))
    path = tmp_path_factory.mktemp("new") / "a.csv"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    alone = write(path.with_name("alone.csv"), {"age": AGES, "city": CITIES})
    assert torch.equal(prepare_rows(preparation, path), prepare_rows(preparation, alone))


@given(names=st.lists(st.sampled_from([*OTHERS])))
@settings(max_examples=25)
def test_columns_that_a_model_does_not_use_refuse_no_parquet_file(
    names: list[str], preparation: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("new")
    used = {"age": AGES, "city": CITIES}
    table = pa.Table.from_arrays([pa.array((OTHERS | used)[name]) for name in [*names, *used]], [*names, *used])
    parquet.write_table(table, folder / "a.parquet")
    alone = write(folder / "alone.parquet", used)
    assert torch.equal(prepare_rows(preparation, folder / "a.parquet"), prepare_rows(preparation, alone))


def test_columns_that_a_model_uses_are_there_once(preparation: Any, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(SeekingError, match=r"new.csv has no column age, city, which the training rows have"):
        prepare_rows(preparation, path)
    path.write_text("age,city,age\n1,Rome,2\n")
    with pytest.raises(SeekingError, match=r"new.csv: several columns are called age; rename them"):
        prepare_rows(preparation, path)


@pytest.mark.parametrize("names", [["new.csv"], ["test.csv"], ["test-1.csv", "test-2.csv"], ["a.csv", "b.csv"]])
def test_rows_of_a_folder_that_is_one_table(names: list[str], preparation: Any, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text(WITHOUT_CLASSES)
    assert len(prepare_rows(preparation, tmp_path)) == 16 * len(names)


@pytest.mark.parametrize(
    "names", [["test.csv", "train.csv"], ["more.csv", "train.csv"], ["one/train.csv", "two/train.csv"]]
)
def test_a_folder_of_several_tables_is_refused(names: list[str], preparation: Any, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(SeekingError, match=f"several tables, such as {', '.join(names)}; give the file of one"):
        prepare_rows(preparation, tmp_path)


def test_a_pipe_is_refused_by_name(preparation: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "new.csv")
    for read in (load, lambda path: prepare_rows(preparation, path)):
        with pytest.raises(SeekingError, match=r"new.csv: a pipe, which can be read only once; save what comes out"):
            read(tmp_path / "new.csv")
