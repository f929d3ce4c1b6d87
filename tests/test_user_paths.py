"""Paths and options as users write them."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from seeking import SeekingError
from seeking.checkpointing.run_dir import RunFolder
from seeking.checkpointing.weights import shapes_of_weights
from seeking.cli import flags_of_files, main
from seeking.commands import Embed, Train
from seeking.data.text import read_text
from seeking.errors import unknown
from seeking.experiments.start import ModelArguments, sources
from seeking.option_parsing import parse_options, plain_switches
from seeking.options import recipe_file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(home: Path) -> None:
    (home / "options.yaml").write_text("output: ~/run\noverrides: ~/map.yaml\n")
    args = ["--config=~/options.yaml"]
    options = parse_options(Train, args, "seeking train", flags_of_files(args, Train)[0])
    assert (options.output, options.overrides) == (home / "run", home / "map.yaml")
    assert parse_options(Train, ["--output=~/a"], "").output == home / "a"
    embed = parse_options(Embed, ["a", "b", "--weights=~/w", "--output=~/o", "--map=~/m"], "")
    assert [embed.weights, embed.output, embed.map] == [home / "w", home / "o", home / "m"]
    assert RunFolder("~/run").path == home / "run"
    assert recipe_file("~/own.yaml") == home / "own.yaml"
    (home / "text").write_bytes(b"abc")
    assert read_text("~/text").tolist() == [97, 98, 99]
    models: dict[str, dict[str, str]] = {"base": {}, "motivated": {}}
    plan = ModelArguments({"base": "resnet8", "motivated": "resnet14"}, models)
    assert sources(("base=~/w",), False, plan) == {"base": str(home / "w")}
    assert parse_options(Train, ["--output=~no-such-user/a"], "").output == Path("~no-such-user/a")


@pytest.mark.parametrize("given", [["--output", ""], ["--output="]])
def test_an_empty_path_is_not_the_current_folder(
    given: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *given]) == 2
    assert "--output is empty; give a path" in capsys.readouterr().err
    assert [*home.iterdir()] == []


def test_pipes_and_devices_are_refused_and_do_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    signal.alarm(20)
    try:
        for read in (read_text, shapes_of_weights):
            with pytest.raises(SeekingError, match="a pipe, which can be read only once; save"):
                read(str(pipe))
            with pytest.raises(SeekingError, match="a device or socket, not a file"):
                read("/dev/zero")
            with pytest.raises(SeekingError, match="a folder, not a file"):
                read(str(tmp_path))
    finally:
        signal.alarm(0)
    save_file({"a": torch.zeros(2)}, tmp_path / "link-target")
    (tmp_path / "link").symlink_to("link-target")
    assert shapes_of_weights(tmp_path / "link") == {"a": (2,)}


@pytest.mark.parametrize(("value", "flag"), [("true", "--flip"), ("False", "--no-flip")])
@pytest.mark.parametrize("joined", [True, False])
def test_switches_take_true_and_false(value: str, flag: str, joined: bool) -> None:
    given = [f"--flip={value}"] if joined else ["--flip", value]
    assert plain_switches(["--lr", "1", *given, "--fused"], Train) == ["--lr", "1", flag, "--fused"]
    with pytest.raises(SeekingError, match="--flip is 'maybe'; it is a switch: give --flip, or --no-flip"):
        plain_switches(["--flip=maybe"], Train)


def test_no_file_of_options_is_left_out_without_a_word(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "a.yaml").write_text("lr: 0.1\n")
    (home / "b.yaml").write_text("config: a.yaml\n")
    assert main(["train", "--config", str(home / "a.yaml"), f"--config={home}/b.yaml"]) == 2
    assert "--config is given 2 times" in capsys.readouterr().err
    assert main(["train", "--config=~/b.yaml"]) == 2
    assert "cannot name another one in config" in capsys.readouterr().err


@given(name=st.sampled_from(["adamw", "resnet8", "RegNet", "wide_resnet"]), upper=st.lists(st.booleans(), min_size=11))
def test_a_name_in_other_case_is_the_only_one_that_is_meant(name: str, upper: list[bool]) -> None:
    spelled = "".join(letter.swapcase() if swap else letter for letter, swap in zip(name, upper, strict=False))
    known = ["adamw", "adam", "resnet8", "resnet18", "RegNet", "wide_resnet"]
    assert str(unknown("name", spelled, known)).endswith(f"did you mean {name}?")
