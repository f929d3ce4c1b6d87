"""Folders of runs: of others, in which reading fails, that are moved while a run is live, or that are damaged."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from inputs import damaged
from safetensors.torch import load_file
from strangers import hostile, offends, stranger
from target import Target
from tiny import ERRORS, FOREIGN, Failing, contents, deleted, files_of, moved, replaced, tiny

from seeking import RunError, SeekingError
from seeking.checkpointing import snapshot
from seeking.commands import Train
from seeking.option_parsing import parse_options
from seeking.options import flags_of_run
from seeking.report.folder import describe
from seeking.training import RunFolder


class Foreign(Target):
    """Folders of others, which are refused and left alone."""

    inputs = st.tuples(FOREIGN, st.booleans())
    known = (({}, False),)

    def check(self, content: tuple[dict[str, str], bool]) -> None:
        files, overwrite = content
        with self.scratch() as folder:
            folder.mkdir()
            for file, text in files.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_text(text)
            before = contents(folder)
            try:
                with RunFolder(folder, overwrite=overwrite, resume=not overwrite) as taken:
                    taken.create({}, None)
            finally:
                after = contents(folder)
                assert all(after.get(file) == text for file, text in before.items()), "files of others are gone"


class Unreadable(Target):
    """A run is continued while operations on its files fail, from one of them on and for a while; then it is continued
    without, and ends as the undisturbed one."""

    share = 20
    seconds = 10.0
    allowed = (SeekingError, RunError)
    inputs = st.tuples(
        st.sampled_from(ERRORS),
        st.integers(0, 5) | st.integers(0, 250),
        st.sampled_from((1, 2, 5, 1000)),
        st.sampled_from(("", "checkpoints", "state.json", "tensors", "manifest", "best", "last", "metrics", "config")),
    )
    known = ((5, 100_000, 1, ""), (5, 0, 1000, ""), (5, 0, 3, "tensors.safetensors"))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.valid, self.whole = folder / "valid", folder / "whole"

        def stop(row: dict[str, Any]) -> None:
            if row["kind"] == "step" and row["step"] == 5:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            tiny(self.valid, listeners=[stop]).fit()
        tiny(self.whole).fit()

    def check(self, content: tuple[int, int, int, str]) -> None:
        number, after, times, only = content
        with self.scratch(self.valid) as output:
            try:
                with Failing(output, number, after, only, times):
                    tiny(RunFolder(output, resume=True), resume=True).fit()
            finally:
                assert not list(output.glob("checkpoints/damaged-*")), "an error in reading was taken for damage"
                tiny(RunFolder(output, resume=True), resume=True).fit()
                for which in ("base.last", "motivated.last"):
                    one, other = (load_file(run / f"{which}.safetensors") for run in (output, self.whole))
                    assert all(torch.equal(one[name], other[name]) for name in other), "the run ended differently"
                assert (output / "metrics.jsonl").read_bytes() == (self.whole / "metrics.jsonl").read_bytes()


def emptied(run: Path) -> None:
    moved(run)
    run.mkdir()


def moved_and_back(run: Path) -> None:
    moved(run)
    run.with_name("elsewhere").rename(run)


class Moved(Target):
    """The folder of a live run is moved, deleted or replaced."""

    share = 20
    seconds = 10.0
    allowed = (RunError,)
    acts: tuple[Callable[[Path], None], ...] = (moved, deleted, replaced, emptied, moved_and_back)
    inputs = st.tuples(st.sampled_from(acts), st.integers(0, 7), st.booleans())
    known = ((moved_and_back, 3, False), (moved, 3, True))

    def check(self, content: tuple[Callable[[Path], None], int, bool]) -> None:
        act, step, wait = content
        before: dict[str, Any] = {}

        def listen(row: dict[str, Any]) -> None:
            if row["kind"] == "step" and row["step"] == step:
                if wait:
                    with contextlib.suppress(RunError):
                        trainer.saver.wait()
                act(output)
                if act is not moved_and_back:  # Which goes on being written.
                    before.update(contents(output) if output.exists() else {})

        with self.scratch() as output:
            trainer = tiny(output, listeners=[listen])
            try:
                trainer.fit()
                assert act is moved_and_back, "the run ended as if nothing had happened"
            except RunError:
                assert act is not moved_and_back
                raise
            finally:
                left = contents(output) if output.exists() and act is not moved_and_back else {}
                assert not left or left == before, "something was written to another's folder"


class Damaged(Target):
    """A file of a finished run is damaged: that is shown, and the run can be continued or says why not."""

    share = 10
    seconds = 10.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.run = folder / "run"
        tiny(self.run).fit()
        self.newest = snapshot.list_checkpoints(self.run / "checkpoints")[0].name
        names = files_of(self.run)
        self.known = [(name, b"") for name in names] + [(name, (self.run / name).read_bytes()) for name in names]
        self.inputs = st.sampled_from(names).flatmap(
            lambda name: st.tuples(st.just(name), damaged((self.run / name).read_bytes()))
        )

    def check(self, content: tuple[str, bytes]) -> None:
        name, text = content
        with self.scratch(self.run) as output:
            same = (output / name).read_bytes() == text
            (output / name).write_bytes(text)
            assert describe(output)[1] == same, "damage was not shown"
            tiny(RunFolder(output, resume=True), resume=True).fit()
            older = name.startswith("checkpoints") and not name.startswith(f"checkpoints/{self.newest}")
            assert older or describe(output)[1], "damage stays"
        if not same:
            raise SeekingError("damaged, shown and mended")


class Spellings(Target):
    """Options of strangers in every spelling."""

    share = 10
    inputs = st.lists(hostile, min_size=1, max_size=3)
    known = ([("epochs", 3)], [("model-kwargs", {"checkpoint_path": "x"})])

    def check(self, content: list[tuple[str, Any]]) -> None:
        with self.scratch() as folder:
            folder.mkdir()
            arguments = flags_of_run(stranger(folder, content), Train)
        if not arguments:
            raise SeekingError("not taken")
        try:
            config = parse_options(Train, arguments, "seeking train")
        except SystemExit as error:
            raise SeekingError("refused by the parser") from error
        assert not offends(config), config
