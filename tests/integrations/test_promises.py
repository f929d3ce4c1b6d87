"""What the page of other training loops promises is tested under the names that it gives."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "integrations.md"


def test_every_test_that_the_page_names_is_there() -> None:
    rows = [line.split("|")[1:-1] for line in PAGE.read_text(encoding="utf-8").splitlines() if "`test_" in line]
    assert len(rows) >= 9
    for column, library in ((1, "transformers"), (2, "lightning")):
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in HERE.glob(f"test_{library}_*.py")]
        tests = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
        for row in rows:
            named = set(re.findall(r"`(test_\w+)`", row[column])) if len(row) > column else set()
            assert named <= tests, f"{library}: {named - tests}"
