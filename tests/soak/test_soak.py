"""Whatever a file or a text from others holds, it is refused in words or it is right.

``make fuzz`` tries each target with as many examples as the profile ``soak`` says, and prints what came of them.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import live
import pytest
import states
import target
import texts
import torch
from hypothesis import Phase
from hypothesis import strategies as st
from target import Offence, Target, accepted, soak

from seeking import SeekingError, WeightsMap, conditions, options
from seeking.checkpointing import manifest, run_dir, run_files, saver, serialize, snapshot
from seeking.errors import DamagedError
from seeking.training.rng import RandomState

pytestmark = pytest.mark.slow

SABOTAGE: dict[type[Target], tuple[object, str, Callable[..., Any]]] = {
    texts.Conditions: (conditions.Always, "__str__", lambda self: "every:1 & never"),
    texts.Maps: (WeightsMap, "as_dict", lambda self: {"entries": {}, "motivated": {}, "buffers": []}),
    texts.Options: (texts, "read_json", lambda path, max_bytes: json.loads(path.read_text())),
    texts.Metrics: (texts, "read_rows", lambda path: map(json.loads, path.open())),
    folders.Runs: (snapshot, "list_checkpoints", lambda path: 1 / 0),
    folders.Checkpoints: (snapshot, "_manifest", lambda step, folder: (folder / "manifest.json").read_text()),
    folders.Strangers: (serialize, "_unpacked", lambda value, tensors: [][0]),
    folders.Parquet: (folders, "load", lambda config: [][0]),
    states.States: (serialize, "_unpacked", lambda value, tensors: value),
    states.Generators: (RandomState, "load_state_dict", lambda self, given: torch.set_rng_state(given["torch"])),
    live.Foreign: (run_files, "is_run", lambda folder: True),
    live.Unreadable: (snapshot, "SeekingError", DamagedError),
    live.Moved: (run_dir.RunFolder, "check_place", lambda self: None),
    live.Damaged: (manifest, "digest", lambda path: None),
    live.Spellings: (options, "_is_harmless", lambda option, value, hint: True),
    states.Resumed: (saver, "restore_state", lambda parts, state: state["missing"]),
}
"""The targets, and for each how to break what it tries."""

targets = pytest.mark.parametrize("kind", SABOTAGE, ids=lambda kind: kind.__name__.lower())


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@targets
def test_refused_in_words_or_right(kind: type[Target], tmp_path: Path) -> None:
    outcomes = soak(kind(tmp_path))
    print(f"| {kind.__name__} | {outcomes.total():,} | {outcomes['accepted']:,} | {outcomes['refused']:,} |")
    assert outcomes["accepted"]
    assert outcomes["refused"] or kind is states.States


@targets
def test_a_program_that_is_broken_is_noticed(
    kind: type[Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = kind(tmp_path)
    monkeypatch.setattr(broken, "known", ())
    monkeypatch.setattr(*SABOTAGE[kind])
    with pytest.raises(Offence):
        soak(
            broken,
            300 * kind.share,
            phases=[Phase.generate],
            database=None,
            report_multiple_bugs=False,
            fixed=3,  # What it finds is found every time.
        )


class Broken(Target):
    inputs = st.integers(0, 9)
    seconds = 1.0

    def wrong(self) -> object:
        raise KeyError("seven")

    def check(self, content: int) -> None:
        if content == 7:
            self.wrong()


def compute() -> None:
    start = time.process_time()
    while time.process_time() < start + 1.1:
        pass


def refuse() -> None:
    raise SeekingError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: [][0], "IndexError: list index"),
        (compute, "of computing"),
        (lambda: time.sleep(60), "not done"),
        (lambda: bytearray(b"x") * (128 << 20), "MiB of memory"),  # So large that no freed memory is used again.
        (refuse, "without a word"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_goes_wrong_is_noticed(
    wrong: Callable[[], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if message == "not done":  # On a busy machine, two seconds are not enough to compute for one.
        monkeypatch.setattr(target, "HUNG", 2.0)
    monkeypatch.setattr(target, "MEMORY", 16)
    broken = Broken(tmp_path)
    monkeypatch.setattr(broken, "wrong", wrong)
    assert accepted(broken, 6)
    with pytest.raises(Offence, match=message):
        accepted(broken, 7)


def test_the_input_that_goes_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(Offence) as error:
        soak(Broken(tmp_path), 100, database=None)
    assert "content=7" in "".join(error.value.__notes__)
