"""A run's folder: nothing of others is deleted, errors in reading are not damage, and damage is told."""

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs import differences
from safetensors.torch import load_file, load_model, save_file
from tiny import ERRORS, FOREIGN, TINY, Failing, Network, contents, deleted, files_of, moved, replaced, tiny
from torch import nn

from seeking import RunError, SeekingError, Trainer
from seeking.checkpointing import manifest, run_files, snapshot
from seeking.checkpointing.place import Place
from seeking.checkpointing.weights import load_matching_weights, load_weights, save_weights, shapes_of_weights
from seeking.errors import DamagedError, RunWarning
from seeking.report.folder import describe
from seeking.training import RunFolder
from seeking.weights_map import WeightsMap


def stop_after(step: int, act: Any = None) -> Any:
    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == step:
            if act is None:
                raise KeyboardInterrupt
            act()

    return listen


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    tiny(path).fit()
    return path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stopped") / "run"
    with contextlib.suppress(KeyboardInterrupt):
        tiny(path, listeners=[stop_after(5)]).fit()
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


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


def without_marker(run: Path) -> Path:
    """As an older version has left it."""
    (run / "manifest.json").unlink()
    return run


def test_runs_of_older_versions_are_known(run: Path) -> None:
    assert run_files.is_run(without_marker(run))
    (run / "config.json").unlink()
    assert run_files.is_run(run), "the checkpoint has the options"
    tiny(RunFolder(run, resume=True), resume=True).fit()
    assert describe(run)[1] and (run / "manifest.json").exists()


@pytest.mark.parametrize("lost", ["manifest", "entries"])
def test_a_lost_manifest_is_told_and_the_next_resume_lists_every_file_again(lost: str, run: Path) -> None:
    (run / "trackers.json").write_text("{}")
    before = {name for name in files_of(run) if "/" not in name} - {"manifest.json"}
    if lost == "manifest":
        (run / "manifest.json").unlink()
    else:
        manifest.Manifest(run).write()  # Killed as soon as it was made anew.
    text = describe(run)[0]
    assert all(f"{name}: not checked, since manifest.json does not list it" in text for name in before), text
    with pytest.warns(RunWarning, match="lists base.best.safetensors, .*trackers.json from now on, as they are"):
        tiny(RunFolder(run, resume=True), resume=True).fit()
    listed = manifest.Manifest.read(run)
    assert listed and listed.files.keys() == before
    text, intact = describe(run)
    assert intact and "not checked" not in text


def test_a_name_in_the_manifest_that_no_file_of_a_run_has_is_listed_no_more(run: Path) -> None:
    text = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(text.replace('"motivated.last', '"otivated.last'))
    assert not describe(run)[1]
    with pytest.warns(RunWarning, match=r"lists otivated.last.safetensors, which no run writes"):
        tiny(RunFolder(run, resume=True), resume=True).fit()
    assert describe(run)[1]


# Errors in reading.


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_an_error_in_reading_is_an_error_and_changes_nothing(number: int, run: Path) -> None:
    """Whichever operation fails, once or from then on."""
    before, after = contents(run), 0
    while True:
        with warnings.catch_warnings(), Failing(run, number, after) as failing:
            warnings.simplefilter("error", RunWarning)
            with contextlib.suppress(SeekingError):
                tiny(RunFolder(run, resume=True), resume=True)
        assert contents(run) == before
        if not failing.failed:
            break
        after += 1
    assert after > 20


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_an_error_in_reading_is_no_damage(number: int, run: Path) -> None:
    newest = snapshot.list_checkpoints(run / "checkpoints")[0]
    for only in ("state.json", "tensors.safetensors", "manifest.json", "checkpoints", "base.best", "config.json"):
        before = contents(run)
        with Failing(run, number, only=only):
            for act in (lambda: describe(run), lambda: tiny(RunFolder(run, resume=True), resume=True).fit()):
                with pytest.raises((SeekingError, RunError)):
                    act()
        after = contents(run)
        assert {
            name: after[name] for name in before if name not in ("manifest.json", "metrics.jsonl", "summary.json")
        } == {name: before[name] for name in before if name not in ("manifest.json", "metrics.jsonl", "summary.json")}
    assert newest.is_dir()
    assert tiny(RunFolder(run, resume=True), resume=True).fit().cost.batches == 8


@pytest.mark.slow
@pytest.mark.fuzz
@settings(max_examples=max(15, settings.default.max_examples // 20))
@given(
    number=st.sampled_from(ERRORS),
    after=st.integers(0, 5) | st.integers(0, 250),
    only=st.sampled_from(("", "checkpoints", "state.json", "tensors", "manifest", "best", "last", "metrics", "config")),
    times=st.sampled_from((1, 2, 5, 1000)),
)
@example(number=5, after=72, only="checkpoints", times=1)  # As it is asked whether a checkpoint is there.
def test_a_run_whose_files_cannot_be_read_for_a_while_ends_as_the_undisturbed_one(
    number: int, after: int, only: str, times: int, finished: Path, stopped: Path
) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        run = Path(shutil.copytree(stopped, Path(folder) / "run"))
        with contextlib.suppress(SeekingError, RunError), Failing(run, number, after, only, times):
            tiny(RunFolder(run, resume=True), resume=True).fit()
        assert not list(run.glob("checkpoints/damaged-*")), "an error in reading was taken for damage"
        tiny(RunFolder(run, resume=True), resume=True).fit()
        assert not differences(run, finished)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_folder_is_left_to_others_when_nothing_is_being_written_to_it(
    error: type[BaseException], tmp_path: Path
) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["kind"] == "step":
            trainer.save()
            raise error

    trainer = tiny(tmp_path / "run", listeners=[stop])
    write = trainer.saver.folder.write_checkpoint
    slowly = mock.patch.object(
        trainer.saver.folder, "write_checkpoint", lambda *args: (time.sleep(0.3), write(*args))[1]
    )
    with slowly, pytest.raises(error):
        trainer.fit()
    assert not [thread for thread in threading.enumerate() if thread.name == "seeking-writer"]


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


def test_files_have_the_rights_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        tiny(tmp_path / "run").fit()
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / "run" / name).stat().st_mode) for name in files_of(tmp_path / "run")}
    assert set(modes.values()) == {0o640}, modes


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


def test_weights_of_another_dtype_are_refused(tmp_path: Path, finished: Path) -> None:
    weights = load_file(finished / "base.best.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, tmp_path / "half.safetensors")
    torch.save({name: value.double() for name, value in weights.items()}, tmp_path / "double.pt")
    for name, dtype in (("half.safetensors", "float16"), ("double.pt", "float64")):
        with pytest.raises(SeekingError, match=rf"torch.{dtype} in the file, torch.float32 in this Network"):
            load_weights(Network(3), tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2), {"state_dict": [1]}, {"model": 3}, {1: torch.zeros(2)}])
def test_what_are_no_tensors_by_name_is_told(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(SeekingError, match=r"weights.pt: not a file of weights: it holds a \w+, not tensors by name"):
        load_weights(Network(3), tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["weights", "weights.st", "weights.pt", "weights.safetensors"])
def test_weights_that_were_saved_are_loaded_whatever_the_name_of_their_file(name: str, tmp_path: Path) -> None:
    saved, loaded = Network(3), Network(3)
    save_weights(saved, tmp_path / name)
    load_weights(loaded, tmp_path / name)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in saved.state_dict().items())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_are_found_beside_what_else_a_loop_has_saved(key: str, tmp_path: Path) -> None:
    saved, loaded = Network(3), Network(3)
    torch.save({"epoch": 3, key: saved.state_dict(), "optimizer_state_dict": {}}, tmp_path / "weights.pt")
    load_weights(loaded, tmp_path / "weights.pt")
    assert all(torch.equal(*pair) for pair in zip(saved.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize("key", ["state_dict", "model"])
@pytest.mark.parametrize("averages", ["state_dict_ema", "model_ema"])
def test_averages_are_taken_if_a_checkpoint_has_some(key: str, averages: str, tmp_path: Path) -> None:
    model, averaged, loaded = Network(3), Network(3), Network(3)
    for expected, saved in ((averaged, averaged.state_dict()), (model, None)):
        torch.save({key: model.state_dict(), averages: saved}, tmp_path / "weights.pt")
        load_weights(loaded, tmp_path / "weights.pt")
        assert all(torch.equal(*pair) for pair in zip(expected.parameters(), loaded.parameters(), strict=True))


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "averages": torch.optim.swa_utils.AveragedModel,
    "compiled": lambda model: cast(nn.Module, torch.compile(model)),
    "compiled in DataParallel": lambda model: nn.DataParallel(cast(nn.Module, torch.compile(model))),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_weights_of_a_wrapped_model_are_those_of_the_model(wrapper: str, tmp_path: Path) -> None:
    model, loaded = Network(3), Network(3)
    wrapped = WRAPPED[wrapper](model)
    torch.save(wrapped.state_dict(), tmp_path / "weights.pt")
    load_weights(loaded, tmp_path / "weights.pt")
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), loaded.parameters(), strict=True))
    assert shapes_of_weights(tmp_path / "weights.pt") == {n: tuple(t.shape) for n, t in model.state_dict().items()}
    other = WRAPPED[wrapper](Network(3))
    load_weights(other, tmp_path / "weights.pt")
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True))


def test_weights_of_a_part_of_another_model_are_told(tmp_path: Path) -> None:
    torch.save(nn.ModuleDict({"net": Network(3), "head": nn.Linear(2, 2)}).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(SeekingError, match=r"begin with 'net\.', as of a part of another model"):
        load_weights(Network(3), tmp_path / "weights.pt")


@pytest.mark.parametrize("words", [5, 7])
def test_weights_of_the_same_shapes_are_loaded_and_tied_ones_with_them(words: int, tmp_path: Path) -> None:
    """As those of a language model, whose head is its embedding, for as many words or for others."""

    def model(words: int) -> nn.Module:
        embedding, inner, head = nn.Embedding(words, 3), nn.Linear(3, 3), nn.Linear(3, words, bias=False)
        head.weight = embedding.weight
        return nn.Sequential(embedding, inner, head)

    saved, loaded = model(5), model(words)
    save_weights(saved, tmp_path / "weights.safetensors")
    with pytest.warns(RunWarning, match="not loaded: 0.weight, 2") if words != 5 else contextlib.nullcontext():
        load_matching_weights(loaded, tmp_path / "weights.safetensors")
    same = {name: torch.equal(loaded.state_dict()[name], value) for name, value in saved.state_dict().items()}
    assert same == {"0.weight": words == 5, "1.weight": True, "1.bias": True, "2.weight": words == 5}


class Words(nn.Module):
    """Its head is its embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(4, width), nn.Linear(width, 4, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.head(self.embedding(words)))


def test_weights_of_a_run_load_without_this_library(tmp_path: Path) -> None:
    data = [(torch.arange(4), torch.arange(4).roll(1))] * 4
    models = {"base": Words(3), "motivated": Words(5)}
    trainer = Trainer(*models.values(), train_loader=data, config=TINY, output=tmp_path / "run")
    trainer.fit()
    for name, model in models.items():
        loaded, file = Words(model.head.in_features), tmp_path / "run" / f"{name}.last.safetensors"
        assert load_model(loaded, file) == (set(), [])
        with trainer.pair.motivated():
            assert torch.equal(loaded(torch.arange(4)), model(torch.arange(4)))


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


class Crash(BaseException):
    pass


@pytest.mark.slow
def test_wherever_a_program_dies_the_manifest_fits_the_files(tmp_path: Path) -> None:
    """Before each renaming."""
    number = 0
    while True:
        output, count = tmp_path / f"run-{number}", 0

        def replace(self: Path, target: Path, real: Any = Path.replace, number: int = number) -> Any:
            nonlocal count
            count += 1
            if count > number:
                raise Crash
            return real(self, target)

        with mock.patch.object(Path, "replace", replace):
            try:
                tiny(output).fit()
                break
            except (Crash, RunError):
                pass
        if (output / "manifest.json").exists():
            assert describe(output)[1], describe(output)[0]
        tiny(RunFolder(output, resume=True), resume=True).fit()
        assert describe(output)[1]
        number += 1
    assert number > 20


# The folder that was locked.


def unlocked(run: Path) -> None:
    (run / run_files.LOCK).unlink()


def emptied(run: Path) -> None:
    moved(run)
    run.mkdir()


def moved_and_back(run: Path) -> None:
    moved(run)
    run.with_name("elsewhere").rename(run)


@pytest.mark.slow
@pytest.mark.fuzz
@settings(max_examples=max(15, settings.default.max_examples // 20))
@given(
    act=st.sampled_from((moved, deleted, replaced, emptied, unlocked, moved_and_back)),
    step=st.integers(0, 7),
    wait=st.booleans(),
)
def test_a_folder_that_is_no_longer_the_one_that_was_locked_is_not_written_to(act: Any, step: int, wait: bool) -> None:
    """One that is back is."""
    states: list[Any] = []

    def state() -> dict[str, Any]:
        left = contents(run) if run.exists() and act is not moved_and_back else {}
        return {name: text for name, text in left.items() if act is not unlocked or name != "metrics.jsonl"}

    def change() -> None:
        if wait or act is unlocked:  # Else what is found changes meanwhile.
            with contextlib.suppress(RunError):
                trainer.saver.wait()
        act(run)
        states.append(state())

    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        run = Path(name) / "run"
        trainer = tiny(run, listeners=[stop_after(step, change)])
        if act is moved_and_back:
            trainer.fit()
            return
        with pytest.raises(RunError, match="no longer the folder that this run has locked"):
            trainer.fit()
        # What was being written meanwhile may still come to what is left.
        assert state() == states[0] or (act is deleted and not wait)


@pytest.mark.slow
def test_nothing_comes_to_a_folder_that_takes_the_path_right_after_any_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer checks, the folder is moved, and the writer goes on."""
    real, checks = Place.check, 0

    def check(place: Place, *args: Any) -> None:
        nonlocal checks
        real(place, *args)
        checks += 1
        if checks == last:
            emptied(place.path)

    monkeypatch.setattr(Place, "check", check)
    for last in range(1, 1000):
        checks, run = 0, tmp_path / str(last) / "run"
        with contextlib.suppress(RunError, SeekingError), warnings.catch_warnings():
            warnings.simplefilter("ignore", RunWarning)
            tiny(run).fit()
        if checks < last:  # Each has had its turn.
            break
        assert not contents(run), f"after check {last}"
    assert last > 20


# Leftovers and lost files.


def test_what_killed_saves_have_left_goes_with_the_next_lock(run: Path) -> None:
    (run / ".base.last.safetensors.writing").mkdir()
    (run / ".base.last.safetensors.writing" / ".tmpAbC123").write_bytes(bytes(99))
    (run / ".config.json.writing").write_text("half")
    (run / "checkpoints" / ".step-00000009.writing").mkdir()
    (run / "checkpoints" / ".step-00000009.writing" / ".tmpAbC123").write_bytes(bytes(99))
    (run / ".mine.writing").write_text("mine")
    tiny(RunFolder(run, resume=True), resume=True).fit()
    assert [path.name for path in run.rglob(".*") if path.name != run_files.LOCK] == [".mine.writing"]


def test_lost_options_are_those_of_the_checkpoint(run: Path) -> None:
    options = json.loads((run / "config.json").read_text())
    for content in (None, b"{", b"[]", json.dumps({**options, "lr": 9}).encode()):
        (run / "config.json").unlink(missing_ok=True)
        if content:
            (run / "config.json").write_bytes(content)
        assert run_files.read_options(run) == options
    tiny(RunFolder(run, resume=True), resume=True).fit()
    assert json.loads((run / "config.json").read_text()) == options


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.b").write_text("x")
    written = manifest.Manifest(tmp_path, "comparison")
    written.announce("a.b", tmp_path / "a.b")
    read = manifest.Manifest.read(tmp_path)
    assert read and (read.kind, read.files) == ("comparison", written.files)
    assert manifest.check_file(tmp_path / "a.b") and not manifest.check_file(tmp_path / "c.d")


@pytest.mark.slow
def test_a_run_whose_rows_are_lost_is_drawn_without_a_warning(run: Path, curves: None) -> None:
    (run / "metrics.jsonl").write_bytes(b"")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        tiny(RunFolder(run, resume=True), resume=True, progress=True).fit()
    assert not [each.message for each in told if "artists" in str(each.message)]
    assert (run / "curves.png").exists()


@pytest.mark.parametrize("step", [None, 0, 2])
def test_code_of_the_user_may_change_the_working_folder(
    step: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    leave = partial(os.chdir, tmp_path / "elsewhere")
    trainer = tiny(Path("run"), listeners=[] if step is None else [stop_after(step, leave)])
    if step is None:
        leave()
    trainer.fit()
    assert describe(tmp_path / "run")[1] and (tmp_path / "run/summary.json").exists()
    assert not [*(tmp_path / "elsewhere").iterdir()]


# A long run.


def test_rows_are_read_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seeking.training import record

    monkeypatch.setattr(record, "TAIL", 3)
    trainer = tiny(tmp_path / "run")
    result = trainer.fit()
    assert len(trainer.record.last) == 3 < len(result.history)
    assert result.history == [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]


def test_a_checkpoint_that_holds_a_file_of_others_is_not_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        snapshot.write(tmp_path, step, {}, {})
    (tmp_path / snapshot.name(1) / "mine.txt").write_text("mine")
    snapshot.prune(tmp_path, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [snapshot.name(1), snapshot.name(3)]
    assert (tmp_path / snapshot.name(1) / "mine.txt").read_text() == "mine"
