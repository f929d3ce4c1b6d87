"""Whatever a file or a text from others holds, it is refused in words or it is right.

``make fuzz`` tries each target with as many examples as the profile ``soak`` says, and prints what came of them.
"""

import gc
import mmap
import time
from collections.abc import Callable
from pathlib import Path

import folders
import pytest
import states
import target
import texts
from hypothesis import strategies as st
from target import Offence, Target, accepted, soak

from seeking import SeekingError

pytestmark = pytest.mark.slow

TARGETS = (
    *(texts.Conditions, texts.Maps, texts.Options, texts.Metrics, states.Generators, states.Resumed),
    *(folders.Shown, folders.Strangers, folders.Parquet),
)


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", TARGETS, ids=lambda kind: kind.__name__.lower())
def test_refused_in_words_or_right(kind: type[Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = soak(kind(tmp_path))
    print(f"| {kind.__name__} | {outcomes.total():,} | {outcomes[True]:,} | {outcomes[False]:,} |")
    assert outcomes[True] and outcomes[False]


class Broken(Target):
    inputs = st.integers(0, 9)
    seconds = 0.2
    wrong: Callable[[], object]

    def check(self, content: int) -> None:
        if content >= 7:
            self.wrong()


def refuse() -> None:
    raise SeekingError


def grow() -> None:
    """Take new memory: an allocator might use again what earlier tests have freed."""
    new = mmap.mmap(-1, 256 << 20)
    for page in range(0, len(new), mmap.PAGESIZE):
        new[page] = 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: [][0], "IndexError: list index"),
        (lambda: sum(range(50_000_000)), r"\d s of computing"),
        (lambda: time.sleep(60), "not done"),
        (grow, r"\d{3} MiB of memory"),
        (refuse, r"SeekingError\(\)"),
    ],
)
def test_what_goes_wrong_is_noticed_and_the_smallest_input_is_told(
    wrong: Callable[[], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if message == "not done":  # On a busy machine, two seconds are not enough to compute.
        monkeypatch.setattr(target, "HUNG", 2.0)
    monkeypatch.setattr(target, "MEMORY", 16)
    gc.collect()  # What earlier tests left is not to be freed meanwhile: the program would hardly grow.
    broken = Broken(tmp_path)
    broken.wrong = wrong
    assert accepted(broken, 6)
    with pytest.raises(Offence, match=message):
        accepted(broken, 7)
    if "Index" in message:
        with pytest.raises(Offence) as error:
            soak(broken, 100, database=None)
        assert "content=7" in "".join(error.value.__notes__)
