"""How the command starts, and options of a wrong type."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed

import seeking
from seeking import SeekingError, TrainConfig
from seeking.__main__ import main as start
from seeking.data import DataConfig
from seeking.experiments.run import RunConfig
from seeking.training.interrupts import STOPPING

INTERRUPTED = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {at!r}:
            try:
                os.kill(os.getpid(), {number})
            except BaseException:  # As some modules do that import others.
                pass

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
sys.argv = ["seeking", "train", "--output", "out"]
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def run(program: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, in which nothing but seeking's place is set."""
    environment = {"PYTHONPATH": str(Path(seeking.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )


ENDS = {
    signal.SIGINT: (130, "", "seeking: interrupted\n"),
    signal.SIGTERM: (75, "", "seeking: stopped by SIGTERM\n"),
    signal.SIGHUP: (75, "", "seeking: stopped by SIGHUP\n"),
}


@pytest.mark.parametrize(
    ("module", "at", "number"),
    [
        *(("seeking", "seeking.cli", number) for number in ENDS),
        *(("seeking.cli", at, signal.SIGINT) for at in ("argparse", "importlib.metadata", "seeking.files", "tyro")),
        *(("seeking.cli", at, signal.SIGTERM) for at in ("seeking.commands", "rich.console")),
        *(pytest.param("seeking.cli", "torch", number, marks=pytest.mark.slow) for number in ENDS),
    ],
)
def test_a_stop_during_the_imports_is_no_traceback(
    module: str, at: str, number: signal.Signals, tmp_path: Path
) -> None:
    program = INTERRUPTED.format(at=at, module=module, number=int(number))
    done = run(program, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == ENDS[number]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["seeking", "seeking.cli"])
@pytest.mark.parametrize("ignored", [False, True])
def test_signals_are_handled_before_anything_large_is_imported_unless_they_are_ignored(
    ignored: bool, module: str
) -> None:
    """Until then, they would end the program with a traceback, or another exit code."""
    program = f"""
import runpy, signal, sys
before = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_DFL)
before[signal.SIGINT] = signal.default_int_handler
if {ignored}:
    before = dict.fromkeys(before, signal.SIG_IGN)
for number, handler in before.items():
    signal.signal(number, handler)
known, unhandled = {{*sys.modules}}, []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if any(signal.getsignal(number) == handler for number, handler in before.items()):
            unhandled.append(name)

sys.meta_path.insert(0, Watch())
sys.argv = ["seeking", "--version"]
try:
    runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
except SystemExit:
    print(*unhandled)
"""
    done = run(program)
    assert (done.returncode, done.stderr) == (0, "")
    unhandled = done.stdout.splitlines()[1].split()
    if ignored:
        assert {"importlib.metadata", "tyro", "rich"} <= {*unhandled}
    else:
        small = {"atexit", "collections.abc", "contextlib", "seeking"}
        small |= {f"seeking.{name}" for name in ("__main__", "cli", "errors", "lazy", "termination")}
        assert {*unhandled} <= small


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)])
@pytest.mark.parametrize(
    "at", ["run_commands.check_names", pytest.param("data.digits._digits", marks=pytest.mark.slow)]
)
def test_a_stop_before_training_leaves_nothing(
    at: str,
    number: int,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(f"seeking.{at}", lambda *given, **options: os.kill(os.getpid(), number))
    monkeypatch.setattr("sys.argv", ["seeking", "train", "--output", str(tmp_path / "out")])
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        ended: object = start()
    except SystemExit as stop:
        ended = stop.code
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert ended == code
    assert "seeking: stopped by SIG" in (err := capfd.readouterr().err) or "seeking: interrupted" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [int(number) for number in STOPPING])
@pytest.mark.parametrize("module", ["seeking.__main__", "seeking.cli"])
def test_a_signal_while_python_ends_does_not_change_the_exit_code(module: str, number: int) -> None:
    program = f"""
import os, runpy, signal, sys

class Late:
    def __del__(self):
        os.kill(os.getpid(), {number})

signal.signal(signal.SIGINT, signal.default_int_handler)
import seeking
seeking.late = Late()
sys.argv = ["seeking", "--version"]
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
    done = run(program)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_the_program_at_once_while_it_waits_for_its_threads() -> None:
    program = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import seeking.__main__, seeking.cli
threading.Thread(target=time.sleep, args=(60,)).start()
seeking.cli.main = lambda: signal.setitimer(signal.ITIMER_REAL, 0.3) and 0
signal.signal(signal.SIGALRM, lambda *given: os.kill(os.getpid(), signal.SIGINT))
sys.exit(seeking.__main__.main())
"""
    began = time.monotonic()
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("ignored", [False, True])
def test_sigterm_is_ignored_where_it_was_and_ends_forked_processes_as_usual(ignored: bool) -> None:
    program = f"""
import os, signal, sys
import seeking.__main__, seeking.cli
signal.signal(signal.SIGTERM, signal.{"SIG_IGN" if ignored else "SIG_DFL"})
def act():
    if (child := os.fork()) == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return 0
seeking.cli.main = act
sys.exit(seeking.__main__.main())
"""
    done = run(program)
    done.check_returncode()
    assert (done.stdout, done.stderr) == ("7\n" if ignored else "-15\n", "")


def test_all_public_names_are_there() -> None:
    assert all(getattr(seeking, name) is not None for name in seeking.__all__)
    assert {*seeking.__all__} <= {*dir(seeking)}
    with pytest.raises(AttributeError, match="no attribute 'Trianer'"):
        seeking.Trianer  # noqa: B018


WRONG = {
    int: st.floats() | st.text() | st.booleans() | st.lists(st.integers()),
    float: st.text() | st.booleans() | st.lists(st.floats()) | st.complex_numbers(),
    str: st.integers() | st.floats() | st.binary(),
    bool: st.integers() | st.text(),
}


@settings(max_examples=60)
@given(data=st.data(), kind=st.sampled_from([TrainConfig, DataConfig, RunConfig]))
def test_options_of_a_wrong_type_are_refused_in_words(data: st.DataObject, kind: type[Any]) -> None:
    types = {name: [each for each in WRONG if each.__name__ in str(hint).split(" | ")] for name, hint in hints(kind)}
    fields = [name for name, known in types.items() if len(known) == 1 and name != "save_every"]
    name = data.draw(st.sampled_from(sorted(fields)))
    value = data.draw(WRONG[types[name][0]])
    with pytest.raises(SeekingError, match=rf"^{name} is .*, of type {type(value).__name__}; it must be "):
        kind(**{name: value})


def hints(kind: type[Any]) -> list[tuple[str, str]]:
    return [(f.name, f.type.__name__ if isinstance(f.type, type) else str(f.type)) for f in dataclasses.fields(kind)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": "0.1"}, "lr is '0.1', of type str; it must be a number"),
        ({"epochs": 1.5}, "epochs is 1.5, of type float; it must be a whole number"),
        ({"clip_grad": "1"}, "it must be a number or None"),
        ({"verify": "no"}, "verify is 'no', of type str; it must be True or False"),
        ({"condition": seeking.Always()}, "condition is a Always; give its text"),
    ],
)
def test_options_that_others_have_tried(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        TrainConfig(**options)


def test_numbers_of_numpy_are_numbers() -> None:
    config = TrainConfig(epochs=np.int64(3), lr=np.float32(0.5), warmup_epochs=1)  # type: ignore[arg-type]
    assert config.recorded()["epochs"] == 3


@pytest.mark.parametrize(("command", "left"), [("--version", True), ("trian", False)])
def test_a_command_that_is_done_leaves_the_other_processes(
    command: str, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["seeking", command])
    before = {number: signal.getsignal(number) for number in STOPPING}
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        assert (start() == 0) == left
        assert distributed.is_initialized() == (not left)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if distributed.is_initialized():
            distributed.destroy_process_group()
