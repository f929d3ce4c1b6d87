"""A short version of tests/torture.py."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_nothing_is_lost() -> None:
    """In a program of its own: runs are forked from it, and the tests' program has threads."""
    harness = [sys.executable, str(Path(__file__).with_name("torture.py")), "--scale", "0.02"]
    done = subprocess.run(harness, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
