"""What stands for no label: one rule for all formats of a task."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seeking import SeekingError
from seeking.data import DataConfig, load, table
from seeking.data.table_columns import MISSING, Column, fit_column

ROWS = 6
SPELLINGS = [spelled for text in sorted(MISSING) for spelled in (text, text.upper(), f" {text} ")]


@settings(max_examples=40)
@given(labels=st.lists(st.sampled_from([*SPELLINGS, "yes"]), min_size=ROWS, max_size=ROWS))
def test_a_test_split_of_a_table_without_a_class_is_not_used_in_any_format(
    labels: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    columns = {"a": [*range(ROWS)], "label": ["yes", "no"] * (ROWS // 2)}
    kept = {}
    for kind in ("csv", "parquet"):
        (folder / kind).mkdir()
        for split, held in (("train", columns), ("test", {**columns, "label": labels})):
            if kind == "parquet":
                pq.write_table(pa.table(held), folder / kind / f"{split}.parquet")
            else:
                lines = ["a,label", *(f"{number},{label}" for number, label in zip(*held.values(), strict=True))]
                (folder / kind / f"{split}.csv").write_text("\n".join(lines))
        splits, label = table.read_tables(DataConfig(task="tabular", data=str(folder / kind)))
        kept[kind] = table.test_split_of(splits, label)
    assert kept["csv"] == kept["parquet"] == ("test" if "yes" in labels else None)


@pytest.mark.parametrize("absent", ["", " ", None])
def test_blank_labels_of_images_are_none(absent: str | None, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    image = [stream.getvalue()] * 4
    pq.write_table(pa.table({"image": image, "label": ["b", "a", "b", "a"]}), tmp_path / "train.parquet")
    labels = pa.array([absent] * 4, pa.string())
    pq.write_table(pa.table({"image": image, "label": labels}), tmp_path / "test.parquet")
    loaded = load(DataConfig(data=str(tmp_path), validation=0.5))
    assert loaded.classes == ("a", "b")
    labels = pa.array(["b", absent, "b", "a"], pa.string())
    pq.write_table(pa.table({"image": image, "label": labels}), tmp_path / "train.parquet")
    with pytest.raises(SeekingError, match="have no label"):
        load(DataConfig(data=str(tmp_path), validation=0.5))


@given(numbers=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9)), min_size=4, max_size=8))
def test_numbers_with_a_decimal_comma_are_not_categories(
    numbers: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("comma") / "table.csv"
    rows = [f"{whole},{part};{'yes' if row % 2 else 'no'}" for row, (whole, part) in enumerate(numbers)]
    file.write_text("\n".join(["size;label", *rows]))
    raw = table.read_tables(DataConfig(task="tabular", data=str(file)))[0]["train"]
    with pytest.raises(SeekingError, match=r"column size, row 1 of table.csv: '\d+,\d' is a number with a comma"):
        fit_column(Column("size", raw), categorical=False)
    assert fit_column(Column("size", raw), categorical=True).width
