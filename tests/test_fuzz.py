"""The targets of fuzz.py with a few inputs each, and that they notice what they are there for."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import pytest
import torch
from fuzz import TARGETS, Offence, Target

from seeking import WeightsMap, conditions
from seeking.checkpointing import saver, serialize, snapshot
from seeking.training.rng import RandomState

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", TARGETS)
def test_chosen_at_random(name: str) -> None:
    assert fuzz.fuzz(TARGETS[name], name, 300, known=False).inputs == max(1, 300 // TARGETS[name].share)


@pytest.mark.parametrize("name", TARGETS)
def test_known(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target, wrong = TARGETS[name](tmp_path), []
    for number, given in enumerate(target.known):
        try:
            fuzz.accepted(target, given, fuzz.peak())
        except Offence as error:
            wrong.append(f"{number}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", TARGETS)
def test_some_are_accepted_and_some_refused(name: str) -> None:
    tried = fuzz.fuzz(TARGETS[name], name, 400, known=False)
    assert tried.accepted > 0
    assert tried.accepted < tried.inputs or name == "states"


class Broken(Target):
    def make(self, draw: fuzz.Random) -> int:
        return draw.randrange(10)

    def check(self, given: int) -> None:
        if given == 7:
            self.wrong()

    def wrong(self) -> None:
        raise KeyError("seven")


class Slow(Broken):
    seconds = 0.1

    def wrong(self) -> None:
        start = time.process_time()
        while time.process_time() < start + 0.2:
            pass


class Hanging(Broken):
    def wrong(self) -> None:
        time.sleep(60)


class Large(Broken):
    seconds = 60.0

    def wrong(self) -> None:
        bytearray(b"x") * (int(fuzz.peak()) + 32 << 20)


class Wordless(Broken):
    def wrong(self) -> None:
        raise fuzz.SeekingError


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Broken, "KeyError: 'seven'"),
        (Slow, "of computing"),
        (Hanging, "not done"),
        (Large, "MiB of memory"),
        (Wordless, "without a word"),
    ],
)
def test_what_goes_wrong_is_noticed(kind: type[Target], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "HUNG", 1.0 if kind is Hanging else 60.0)
    monkeypatch.setattr(fuzz, "MEMORY", 16)
    with pytest.raises(Offence, match=f"(?s)input [0-9]+, seed 0: .*{message}.*\n7$"):
        fuzz.fuzz(kind, "broken", 200)


SABOTAGE: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "conditions": (conditions.Every, "__str__", lambda self: "every:1 & never"),
    "maps": (WeightsMap, "as_dict", lambda self: {"entries": {}, "motivated": {}, "buffers": []}),
    "options": (fuzz, "read_json", lambda path, max_bytes: json.loads(path.read_text())),
    "metrics": (fuzz, "read_rows", lambda path: map(json.loads, path.open())),
    "runs": (snapshot, "list_checkpoints", lambda path: 1 / 0),
    "checkpoints": (snapshot, "_manifest", lambda step, folder: (folder / "manifest.json").read_text()),
    "strangers": (serialize, "_unpacked", lambda value, tensors: [][0]),
    "states": (serialize, "_unpacked", lambda value, tensors: value),
    "generators": (RandomState, "load_state_dict", lambda self, given: torch.set_rng_state(given["torch"])),
    "resumed": (saver, "restore_state", lambda parts, state: state["missing"]),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_program_that_is_broken_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sabotaged(TARGETS[name]):  # type: ignore[misc]
        share = 1

        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            monkeypatch.setattr(*SABOTAGE[name])

    with pytest.raises(Offence):
        fuzz.fuzz(Sabotaged, name, 300, known=False)
