"""What commands print: the help, any encoding, closed streams, and no control characters."""

import contextlib
import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeking.cli import COMMANDS, main
from seeking.escapes import printable
from seeking.options import RECIPES
from seeking.report.output import PrintableConsole, ignore_output_errors

pytestmark = pytest.mark.usefixtures("_elsewhere")


def test_the_list_of_commands_has_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  seeking ")]
    assert len(lines) == len(COMMANDS)
    assert not [line for line in lines if not line.endswith(".")]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        assert main([*([command] if command else []), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "seeking" in shown
    if command in ("train", "compare"):
        for flag in ("--base", "--motivated", "--data", "--condition", "--epochs", "--batch-size", "--lr", "--seed"):
            assert flag in shown
        for recipe in RECIPES.glob("*.yaml"):
            assert recipe.stem in shown


@given(st.text(st.characters(max_codepoint=0x2100)))
def test_printed_text_holds_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in shown)
    console = PrintableConsole(file=io.StringIO(), width=10_000, markup=False)
    console.print(text, highlight=False, emoji=False)
    assert "\x1b" not in console.file.getvalue()
    assert printable(shown) == shown


def test_streams_that_are_closed_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sys.stdout", "sys.stderr"):
        monkeypatch.setattr(name, None)
    assert main(["map", "resnet8", "resnet14"]) == 0
    assert main(["nothing"]) == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1", "utf-8"])
def test_output_goes_through_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(content, encoding=encoding))
    with ignore_output_errors():
        print("1×8×8, 0.5 ± 0.1 … ünï\udcff", flush=True)
    assert content.getvalue().decode(encoding)
    assert b"\\udcff" in content.getvalue()


def test_names_from_files_do_not_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x9b31m"
    folder = Path(f"run{evil}")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({evil: evil, "lr": evil}))
    assert main(["map", "resnet8", "resnet14", "--save", "map.json"]) == 0
    content = json.loads(Path("map.json").read_text())
    content["entries"][evil] = content["entries"].pop(next(iter(content["entries"])))
    Path(f"{evil}.json").write_text(json.dumps(content))
    for arguments in (
        ["show", str(folder)],
        ["show", "."],
        ["train", "--resume", "--output", str(folder)],
        ["train", "--data", f"./{evil}"],
        ["train", "--lr", evil],
        ["train", f"--{evil}", "1"],
        [evil],
        ["verify", "resnet8", "resnet14", "--map", f"{evil}.json"],
        ["extract", "resnet8", "resnet14", "--weights", f"{evil}.json", "--output", "base.safetensors"],
    ):
        with contextlib.suppress(SystemExit):
            main(arguments)
        out, err = capsys.readouterr()
        assert out + err
        assert not set("\x1b\x07\x9b") & set(out + err), arguments
