"""What is printed is complete, or an error; and what cannot be shown does not lose a run."""

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny

from seeking.cli import main
from seeking.errors import RunWarning
from seeking.report.output import make_console
from seeking.report.tables import terminal


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_result_that_cannot_be_printed_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full, contextlib.redirect_stdout(full):
        assert main(["map", "resnet8", "resnet14"]) == 1
    assert "standard output cannot be written (No space left on device)" in capsys.readouterr().err


@given(width=st.integers(-3, 60), number=st.decimals(0, 100, places=4).map(str), columns=st.integers(1, 4))
def test_numbers_of_a_table_are_never_cut_off(width: int, number: str, columns: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        console = make_console()
        if 0 < width < 8 * columns:
            return  # Not even a digit a line fits.
        with console.capture() as captured:
            console.print(terminal((("name",) * columns, [(number,) * columns])))
    digits = [letter for letter in captured.get() if letter.isdigit()]
    assert sorted(digits) == sorted(letter for letter in number * columns if letter.isdigit())


def test_a_figure_that_cannot_be_drawn_does_not_lose_the_results(tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*given: Any) -> None:
        raise ValueError("no such backend")

    monkeypatch.setattr("seeking.report.plots.draw", fail)
    with pytest.warns(RunWarning, match=r"curves.png: not drawn \(ValueError: no such backend\)"):
        tiny(tmp_path / "run", progress=True).fit()
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, {"RANK": "0", "LOCAL_RANK": "0"}])
def test_what_is_left_of_a_launcher_in_the_environment_is_named(
    variables: dict[str, str], client: str, tmp_path: Path
) -> None:
    command = [client, "seeking", "train", "--device", "cpu", "--output", str(tmp_path / "run")]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    name, value = next(iter(variables.items()))
    assert f"{name}={value}" in done.stderr and "unset these variables" in done.stderr
