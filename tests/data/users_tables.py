"""Tables as a user may have them: in a file, in a folder, or by a name of the hub."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from seeking.experiments.config import RunConfig
from seeking.experiments.tasks import task

ROWS = 24

CLASSES = ["cat", "dog"] * (ROWS // 2)


def write(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    (pa.csv.write_csv if path.suffix == ".csv" else pa.parquet.write_table)(table, path)
    return path


def load(path: Path | str, **options: Any) -> Any:
    config = RunConfig(task="tabular", data=str(path), **options)
    return task("tabular").load(config, 1, config.loss)


GOOD = "age,city,label\n" + "1,Rome,yes\n2,Bern,no\n" * 8
WITHOUT_CLASSES = GOOD.replace(",label", "").replace(",yes", "").replace(",no", "")
