"""The commands of the docs' figures work; what they print is not judged."""

import contextlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"

SHORT = {
    "checkpoint": ["--pair", "tiny", "tiny", "--rounds", "1", "--steps", "8", "--batch-size", "1"],
    "derive": ["--pairs", "llama, 4 of 8 layers"],
    "scaling": ["--pairs", "resnet8 in resnet14", "--rounds", "1", "--max-steps", "6"],
    "step": ["--pairs", "resnet8 in resnet14", "--rounds", "2", "--steps", "1"],
    "sync": ["--rounds", "1"],
}
"""What makes a benchmark a matter of seconds; the others are only started."""


NO_BENCHMARKS = {"ratios", "redraw"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NO_BENCHMARKS))
def test_a_benchmark_runs(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [name, *SHORT.get(name, ["--help"])])
    with contextlib.suppress(SystemExit):  # Of --help.
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.slow
def test_scaling_runs_in_two_processes(client: str) -> None:
    command = [client, "--processes", "2", str(FOLDER / "scaling.py"), *SHORT["scaling"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| resnet8 in resnet14 |") == 1
