"""Commands that are refused, and the options of one that trains for a second."""

import re
from pathlib import Path

import pytest

from seeking.cli import main


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], code: int = 2) -> None:
    """One clear error, no traceback, nothing written."""
    before = sorted(Path.cwd().rglob("*"))
    try:
        given: object = main(arguments)
    except SystemExit as stop:  # The parser of flags leaves by itself.
        given = stop.code
    assert given == code
    out, err = capsys.readouterr()
    assert re.search(message, " ".join((out + err).split())), out + err
    assert "Traceback" not in out + err
    assert sorted(Path.cwd().rglob("*")) == before


TABLE = ["--task", "tabular", "--data", "wine", "--base", "mlp-4", "--motivated", "mlp-8", "--device", "cpu"]
