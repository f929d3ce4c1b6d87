"""Texts: windows of bytes, the parts of a text, and the loss of the next byte."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tasks import GPT2, loaded
from torch import Tensor

from seeking import SeekingError
from seeking.data import text
from seeking.data.split_use import NOT_USED, SET_ASIDE
from seeking.data.text import Windows, python_sources, read_text
from seeking.experiments import RunConfig
from seeking.training.next_byte import NextByte

pytest.importorskip("transformers", reason="needs transformers: pip install 'seeking[transformers]'")

TEXTS = st.binary(min_size=2, max_size=400).map(lambda content: torch.tensor([*content], dtype=torch.uint8))


@given(TEXTS, st.integers(1, 60), st.integers(1, 40), st.none() | st.integers(0, 9), st.integers(0, 3))
@settings(max_examples=60)
def test_targets_are_the_bytes_that_follow(
    content: Tensor, length: int, count: int, seed: int | None, epoch: int
) -> None:
    if len(content) <= length:
        with pytest.raises(SeekingError, match=rf"{len(content)} bytes is too short for a window of {length}"):
            Windows(content, length, count, seed)
        return
    windows = Windows(content, length, count, seed)
    windows.set_epoch(epoch)
    order = torch.randperm(len(windows)).tolist()
    inputs, targets = windows.__getitems__(order)
    assert inputs.shape == targets.shape == (len(windows), length)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    every = {tuple(content[start : start + length + 1].tolist()) for start in range(len(content) - length)}
    for row, index in enumerate(order):
        window = (*inputs[row].tolist(), int(targets[row, -1]))
        assert window in every
        item = windows[index]  # In whatever order and company.
        assert torch.equal(item[0], inputs[row]) and torch.equal(item[1], targets[row])
    if seed is None and count > 1:
        starts = windows._starts
        assert (starts.diff() >= length).all()  # No byte is measured twice.


def test_windows_lie_elsewhere_in_each_epoch_and_for_each_seed() -> None:
    content = torch.randint(256, (5000,), dtype=torch.uint8)

    def starts(seed: int, epoch: int) -> list[int]:
        windows = Windows(content, 8, 100, seed)
        windows.set_epoch(epoch)
        return windows._starts.tolist()

    assert starts(1, 2) == starts(1, 2)
    assert len({tuple(starts(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@given(st.none() | st.floats(0.05, 0.5), st.none() | st.integers(1, 5), st.integers(1, 30))
@settings(max_examples=25)
def test_parts_of_a_text_have_nothing_in_common(
    lyrics: Path, validation: float | None, held_out: int | None, length: int
) -> None:
    config = RunConfig(
        task="text", data=str(lyrics), validation=validation, held_out=held_out, sequence_length=length, **GPT2
    )
    data: Any = loaded(config)
    whole = read_text(str(lyrics))
    parts = [data.train, *([data.held_out] if held_out else []), data.test]
    assert torch.equal(torch.cat(parts), whole[: sum(map(len, parts))])
    assert len(whole) - sum(map(len, parts)) == (round(len(whole) * 0.1) if validation else 0)  # The test part.
    aside = data.loaders(config).held_out
    assert (len(aside.dataset) if aside else None) == held_out
    uses = {split.use: split.source for split in data.splits}
    assert uses.keys() == {"training", "test"} | ({SET_ASIDE} if held_out else set()) | (
        {NOT_USED} if validation else set()
    )
    assert sum(int(source.removesuffix(" bytes").replace(",", "")) for source in uses.values()) == len(whole)


@pytest.mark.slow
def test_pythons_sources_are_on_board(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = python_sources()
    assert len(paths) > 100
    assert paths == python_sources()
    assert not [path for path in paths if "site-packages" in path.parts]
    monkeypatch.setattr(text, "python_sources", lambda: paths[:3])
    assert bytes(read_text("python").tolist()) == b"".join(path.read_bytes() for path in paths[:3])


def test_a_text_that_cannot_be_read_or_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match=r"nowhere.txt: cannot be read .* give the path of a text, or python"):
        read_text(str(tmp_path / "nowhere.txt"))
    with pytest.raises(SeekingError, match="a folder, not a file"):
        read_text(str(tmp_path))
    (tmp_path / "short.txt").write_text("a" * 300)
    with pytest.raises(SeekingError, match="the test part has 30 bytes, of which a window needs 257"):
        loaded(RunConfig(task="text", data=str(tmp_path / "short.txt"), **GPT2))
    with pytest.raises(SeekingError, match="a smaller sequence_length or held_out"):
        loaded(RunConfig(task="text", data=str(tmp_path / "short.txt"), sequence_length=8, held_out=100, **GPT2))


def test_a_model_that_knows_nothing_needs_eight_bits() -> None:
    batch = torch.randint(256, (3, 7)), torch.randint(256, (3, 7))
    metrics = NextByte().evaluate(lambda inputs: torch.zeros(*inputs.shape, 256), batch)  # type: ignore[arg-type]
    torch.testing.assert_close(metrics["bits_per_byte"], torch.full((3,), 8.0))
    assert NextByte().is_better({"loss": 1.0}, {"loss": math.nan})
    assert not NextByte().is_better({"loss": 1.0}, {"loss": 1.0})
