"""Nothing of others is deleted or changed, and a run that cannot begin leaves nothing."""

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FOREIGN, TINY, Network, contents, tiny

from seeking import SeekingError
from seeking.checkpointing import run_files, snapshot
from seeking.checkpointing.weights import load_weights, save_weights
from seeking.report.folder import describe
from seeking.training import RunFolder
from seeking.weights_map import WeightsMap

# Folders of others.


@pytest.mark.fuzz
@given(files=FOREIGN, overwrite=st.booleans())
def test_nothing_in_a_folder_of_others_is_touched(files: dict[str, str], overwrite: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        before = contents(folder)
        with pytest.raises(SeekingError, match="not the folder of a run"):
            RunFolder(folder, overwrite=overwrite, resume=not overwrite)
        assert contents(folder) == before


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=9),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(st.sampled_from(("format", "version", "kind", "files", "name")) | st.text(max_size=3), part)
    ),
    max_leaves=9,
)


@given(content=JSON.map(json.dumps).map(str.encode) | st.binary(max_size=30) | st.none())
def test_a_manifest_of_others_beside_weights_is_none_of_a_run(content: bytes | None) -> None:
    saved, loaded = Network(3), Network(3)
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "base.last.safetensors"
        if content is None:
            (folder / "manifest.json").mkdir()
        else:
            (folder / "manifest.json").write_bytes(content)
        run_files.check_of_no_run(path)
        save_weights(saved, path)
        load_weights(loaded, path)
    assert all(torch.equal(*pair) for pair in zip(saved.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize("name", ["thesis.tex", "checkpoints/step-00000008/mine", "checkpoints/mine", "sub/mine"])
def test_a_run_with_files_of_others_is_not_overwritten(name: str, run: Path) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("mine")
    before = contents(run)
    with pytest.raises(SeekingError, match=r"is no file of a run, so .* is not overwritten"):
        tiny(RunFolder(run, overwrite=True)).fit()
    assert contents(run) == before


def test_a_run_that_begins_anew_leaves_files_of_others(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(TINY.recorded(), None)  # Killed before its first checkpoint.
    folder.close()
    (tmp_path / "run" / "slurm-12.out").write_text("log")
    tiny(RunFolder(tmp_path / "run", resume=True), resume=True).fit()
    assert (tmp_path / "run" / "slurm-12.out").read_text() == "log"


def test_all_of_a_run_is_overwritten(run: Path) -> None:
    snapshot.set_aside(snapshot.list_checkpoints(run / "checkpoints")[-1])
    before = (run / "base.last.safetensors").stat().st_mtime_ns
    tiny(RunFolder(run, overwrite=True)).fit()
    assert (run / "base.last.safetensors").stat().st_mtime_ns != before
    assert describe(run)[1]


@pytest.mark.slow
@settings(max_examples=25)
@given(
    before=st.sampled_from((".", "parent", "parent/run", "parent/run/.lock", "parent/run/.map.json.writing")),
    place=st.integers(0, 30),
    lasting=st.booleans(),
    error=st.sampled_from((OSError(errno.ENOSPC, "full"), KeyboardInterrupt())),
)
def test_a_run_that_cannot_begin_leaves_nothing(before: str, place: int, lasting: bool, error: BaseException) -> None:
    calls = 0

    def failing(act: Any) -> Any:
        def maybe(*given: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == place + 1 or (lasting and calls > place):
                raise error
            return act(*given, **options)

        return maybe

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "parent" / "run"
        if before.endswith(".lock"):
            path.mkdir(parents=True)
            (path / ".lock").touch()
        else:
            (Path(name) / before).mkdir(parents=True, exist_ok=True)
        found = {each for each in Path(name).rglob("*") if not each.name.endswith(".writing")}
        folder = RunFolder(path)
        writes = {each: failing(getattr(Path, each)) for each in ("mkdir", "touch", "write_text", "replace", "chmod")}
        failed = False
        with mock.patch.multiple(Path, **writes), mock.patch("os.fsync", failing(os.fsync)):
            try:
                folder.create(TINY.recorded(), WeightsMap({}, {}))
            except (SeekingError, KeyboardInterrupt):
                failed = True
        assert failed == (calls > place)
        if failed:
            left = {each for each in Path(name).rglob("*") if not each.name.endswith(".writing")}
            assert left == found
            folder.create(TINY.recorded(), WeightsMap({}, {}))  # The trouble has passed.
        folder.close()
        assert run_files.is_run(path)
        assert {each.name for each in path.iterdir()} == {"manifest.json", "config.json", "map.json", ".lock"}
        assert describe(path)[1]


def test_what_others_put_into_the_folder_of_a_run_that_cannot_begin_stays(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "run")

    def disturbed(path: Path, text: str, encoding: str | None = None) -> int:
        (tmp_path / "a" / "run" / "log").touch()
        raise OSError(errno.ENOSPC, "full")

    with mock.patch.object(Path, "write_text", disturbed), pytest.raises(SeekingError, match="full"):
        folder.create(TINY.recorded(), None)
    assert [each.name for each in tmp_path.rglob("*")] == ["a", "run", "log"]


def test_a_run_that_could_not_begin_begins_when_it_is_told_again(tmp_path: Path) -> None:
    trainer = tiny(tmp_path / "run")
    with mock.patch("os.fsync", side_effect=OSError(errno.ENOSPC, "full")), pytest.raises(SeekingError, match="full"):
        trainer.fit()
    assert not (tmp_path / "run").exists()
    trainer.fit()
    assert describe(tmp_path / "run")[1]


def test_a_checkpoint_that_holds_a_file_of_others_is_not_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        snapshot.write(tmp_path, step, {}, {})
    (tmp_path / snapshot.name(1) / "mine.txt").write_text("mine")
    snapshot.prune(tmp_path, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [snapshot.name(1), snapshot.name(3)]
    assert (tmp_path / snapshot.name(1) / "mine.txt").read_text() == "mine"
