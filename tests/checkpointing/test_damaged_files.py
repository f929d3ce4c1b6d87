"""Damage to any file of a run is shown, and what is damaged is not used."""

import contextlib
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import differences
from safetensors.torch import load_file
from tiny import Network, contents, files_of, tiny

from seeking import SeekingError
from seeking.checkpointing import run_files, snapshot
from seeking.checkpointing.weights import load_weights
from seeking.errors import DamagedError, RunWarning
from seeking.report.folder import describe
from seeking.training import RunFolder


def test_where_all_checkpoints_are_damaged_nothing_is_changed_or_begun(run: Path) -> None:
    for path in run.glob("*.safetensors"):
        path.unlink()
    (run / "summary.json").unlink()
    for path in (run / "checkpoints").rglob("state.json"):
        path.write_bytes(path.read_bytes()[:-9] + b"xxxxxxxxx")
    before = contents(run)
    for _ in range(2):
        with pytest.raises(SeekingError, match="none of 2 checkpoints is intact"):
            tiny(RunFolder(run, resume=True), resume=True)
        assert contents(run) == before
    for path in list((run / "checkpoints").iterdir()):
        path.rename(path.with_name(f"damaged-{path.name}"))  # As older versions did.
    with pytest.raises(SeekingError, match=r"damaged-step-.* is there, but no checkpoint"):
        tiny(RunFolder(run, resume=True), resume=True)


# Damage.


def flip(content: bytes, at: float) -> bytes:
    place = min(int(at * len(content)), len(content) - 1)
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGE = {
    "flipped bit": lambda content: flip(content, 0.6),
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zeroed page": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "longer": lambda content: content + b"\n",
    "gone": None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_any_file_of_a_finished_run_is_shown(damage: str, run: Path) -> None:
    assert describe(run)[1]
    for name in files_of(run):
        path, content = run / name, (run / name).read_bytes()
        if DAMAGE[damage] is None:
            path.unlink()
        else:
            path.write_bytes(DAMAGE[damage](content))
        text, intact = describe(run)
        assert not intact, name
        assert "NOT intact" in text
        path.write_bytes(content)
    assert describe(run)[1]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """With a flipped bit, or a part cut, repeated or replaced."""
    start, size = draw(st.integers(0, len(content))), draw(st.sampled_from((0, 1, 8, 64, len(content))))
    part = content[start : start + size]
    ways = [
        b"",
        part * 2,
        part + b"\0",
        *([bytes([part[0] ^ 1 << draw(st.integers(0, 7))]) + part[1:]] if part else []),
    ]
    return content[:start] + draw(st.sampled_from(ways)) + content[start + size :]


@pytest.mark.slow
@pytest.mark.fuzz
@settings(max_examples=max(30, settings.default.max_examples // 10))
@given(data=st.data())
def test_a_run_with_any_damage_to_any_file_is_shown_as_damaged_and_goes_on_or_is_refused(
    data: st.DataObject, finished: Path
) -> None:
    name = data.draw(st.sampled_from(files_of(finished)))
    content = (finished / name).read_bytes()
    changed = data.draw(damaged(content))
    newest = snapshot.list_checkpoints(finished / "checkpoints")[0].name
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        run = Path(shutil.copytree(finished, Path(folder) / "run"))
        (run / name).write_bytes(changed)
        assert describe(run)[1] == (changed == content)
        with contextlib.suppress(SeekingError):
            tiny(RunFolder(run, resume=True), resume=True).fit()
            of_checkpoint = name.startswith("checkpoints")
            assert describe(run)[1] or (of_checkpoint and newest not in name), "damage stays"
            assert not of_checkpoint or not differences(run, finished), "it is another run now"


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_not_loaded_and_a_resumed_run_makes_the_last_ones_again(damage: str, run: Path) -> None:
    content, weights = (run / "base.last.safetensors").read_bytes(), load_file(run / "base.last.safetensors")
    for name in ("base.best.safetensors", "base.last.safetensors"):
        (run / name).unlink()
        if DAMAGE[damage]:
            (run / name).write_bytes(DAMAGE[damage](content))
        with pytest.raises(DamagedError, match=r"missing|damaged"):
            load_weights(Network(3), run / name)
    with pytest.warns(RunWarning) as warned:
        tiny(RunFolder(run, resume=True), resume=True).fit()
    assert any("base.last.safetensors" in str(w.message) and "made again" in str(w.message) for w in warned)
    again = load_file(run / "base.last.safetensors")
    assert again.keys() == weights.keys() and all(torch.equal(again[name], weights[name]) for name in weights)
    assert describe(run)[1]
    load_weights(Network(3), run / "base.last.safetensors")
    if (run / "base.best.safetensors").exists():  # The newest checkpoint may be from before the last evaluation.
        load_weights(Network(3), run / "base.best.safetensors")


@pytest.mark.parametrize("place", ["link", "run/link", "elsewhere/link"])
@pytest.mark.parametrize("chained", [False, True])
def test_damaged_weights_are_not_loaded_by_a_link(place: str, chained: bool, run: Path) -> None:
    link, file = run.parent / place, run / "base.last.safetensors"
    link.parent.mkdir(exist_ok=True)
    if chained:
        (run.parent / "other").symlink_to(file)
    link.symlink_to(run.parent / "other" if chained else file)
    load_weights(Network(3), link)
    file.write_bytes(flip(file.read_bytes(), 0.99))
    with pytest.raises(DamagedError, match=r"base.last.safetensors: damaged; it is not the file"):
        load_weights(Network(3), link)


def test_weights_beside_a_damaged_manifest_are_not_loaded(run: Path) -> None:
    text = (run / "manifest.json").read_bytes()
    (run / "manifest.json").write_bytes(text[:-9])
    with pytest.raises(DamagedError, match=r"manifest.json: damaged"):
        load_weights(Network(3), run / "base.last.safetensors")


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
def test_a_file_of_a_checkpoint_is_told_from_weights_and_not_written_over(name: str, run: Path) -> None:
    path = snapshot.list_checkpoints(run / "checkpoints")[0] / name
    with pytest.raises(SeekingError, match=rf"{name}: a file of a checkpoint, .* such as motivated.last.safetensors"):
        load_weights(Network(3), path)
    with pytest.raises(SeekingError, match=rf"{name} is a file of the checkpoint in .*; name another file"):
        run_files.check_of_no_run(path)
    with pytest.raises(SeekingError, match=r"manifest.json is a file of the run in .*; name another file"):
        run_files.check_of_no_run(run / "manifest.json")


def test_weights_are_checked_while_a_run_replaces_them(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(row: dict[str, Any]) -> None:
        if (tmp_path / "run" / "base.last.safetensors").exists():
            load_weights(Network(3), tmp_path / "run" / "base.last.safetensors")
            assert describe(tmp_path / "run")[1]
            seen.append(row.get("step", 0))

    tiny(tmp_path / "run", listeners=[look]).fit()
    assert seen


@pytest.mark.parametrize("before", ["check", "is_file", "open_file", "digest"])
def test_checkpoints_that_a_run_deletes_while_it_is_shown_are_not_damaged(before: str, run: Path) -> None:
    """The run deletes one right before an operation on it."""
    checkpoint, real = snapshot.list_checkpoints(run / "checkpoints")[-1], getattr(snapshot, before)

    def late(path: Path) -> Any:
        if checkpoint in (path, path.parent) and checkpoint.exists():
            shutil.rmtree(checkpoint.rename(checkpoint.with_name(f".{checkpoint.name}.writing")))
        return real(path)

    with mock.patch.object(snapshot, before, late):
        text, intact = describe(run)
    assert intact, text
    assert f"{checkpoint.name}: deleted meanwhile" in text
