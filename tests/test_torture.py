"""A short version of tests/torture.py."""

import subprocess
import sys
from pathlib import Path

import pytest
from torture import FAULTS

pytestmark = pytest.mark.slow

TOGETHER = [("kill", "kill-everywhere"), ("two-processes",)]
TOGETHER += [tuple(fault for fault in FAULTS if not any(fault in group for group in TOGETHER))]


@pytest.mark.parametrize("faults", TOGETHER, ids=lambda faults: faults[0])
def test_nothing_is_lost(faults: tuple[str, ...]) -> None:
    """In a program of its own: runs are forked from it, and the tests' program has threads."""
    harness = [sys.executable, str(Path(__file__).with_name("torture.py")), "--scale", "0.02", "--only", *faults]
    done = subprocess.run(harness, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
