"""Runs are disturbed, resumed, and compared with one that nothing happens to.

``make torture`` tries as many as the profile ``torture`` says, and prints for each fault how often it was tried, how
many steps had to be taken again, and how many of them a checkpoint had already held.
"""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from programs import differences, exit_codes, job, saved, steps

pytestmark = pytest.mark.slow

Fault = Callable[[list[BaseProcess], Path], object]
"""What is done to a job and the run's folder."""


def sent(number: int, times: int = 1, to: slice = slice(None)) -> Fault:
    """A signal to some of its processes."""

    def fault(started: list[BaseProcess], output: Path) -> None:
        for process in started[to] * times:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, number)
            time.sleep(0.001)

    return fault


def file_size_limited(started: list[BaseProcess], output: Path) -> None:
    """No file may grow, for a while or to the end of the run."""
    with contextlib.suppress(ProcessLookupError):
        for process in started:
            before = resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE, (random.randrange(20_000), before[1]))
        time.sleep(random.uniform(0.05, 0.4))
        for process in started if random.random() < 0.5 else ():
            resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE, before)


def disk_filled(started: list[BaseProcess], output: Path) -> None:
    """The disk fills up, and is emptied after a while or at the end of the run."""
    filler = output.with_name("filler")
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    time.sleep(random.uniform(0.05, 0.4))
    if random.random() < 0.5:
        filler.unlink()
    exit_codes(started)
    filler.unlink(missing_ok=True)


FAULTS: dict[str, tuple[Fault, int]] = {
    "killed": (sent(signal.SIGKILL), -signal.SIGKILL),
    "one killed": (sent(signal.SIGKILL, to=slice(-1, None)), -signal.SIGKILL),  # The others of its job end as well.
    "killed before an operation": (lambda started, output: None, -signal.SIGKILL),  # By itself: see ``programs.job``.
    "terminated": (sent(signal.SIGTERM), 75),
    "interrupted": (sent(signal.SIGINT), 130),
    "interrupted twice": (sent(signal.SIGINT, times=2), 130),  # It leaves at once.
    "file size limited": (file_size_limited, 1),
    "disk filled": (disk_filled, 1),
}
"""By name, with the exit code that a job may end with."""
LOSE_NOTHING = ("terminated", "interrupted")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk in memory; a folder where only root may mount one."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A run that nothing happens to, by one process and by two."""
    runs = {processes: tmp_path_factory.mktemp("undisturbed") / "run" for processes in (1, 2)}
    for processes, output in runs.items():
        finish(output, processes)
    return runs


@pytest.fixture(scope="module")
def tally() -> Iterator[dict[str, Counter[str]]]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in FAULTS}
    yield counts
    print("\n| fault | times | steps taken again | saved steps lost |\n| --- | --- | --- | --- |")
    for name, count in counts.items():
        print(f"| {name} | {count['times']} | {count['again']} | {count['lost']} |")


def finish(output: Path, processes: int) -> None:
    assert set(exit_codes(job(output, processes))) == {0}, output.with_suffix(".log").read_text()


@settings(
    max_examples=max(1, settings.default.max_examples // 250),
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(
    # Faults, and when each comes: after so many more steps, and seconds.
    plan=st.lists(
        st.tuples(st.sampled_from(list(FAULTS)), st.integers(0, 30), st.floats(0, 0.1)), min_size=1, max_size=4
    ),
    processes=st.sampled_from((1, 1, 1, 2)),
)
@example([("killed", 4, 0.0), ("terminated", 5, 0.01), ("killed before an operation", 10, 0.0)], 1)
@example([("interrupted", 7, 0.0), ("file size limited", 2, 0.0), ("interrupted twice", 4, 0.0)], 1)
@example([("disk filled", 5, 0.0), ("killed", 0, 0.1)], 1)
@example([("one killed", 11, 0.0), ("terminated", 3, 0.0)], 2)
def test_a_run_that_is_disturbed_and_resumed_ends_as_if_it_had_not_been(
    disk: Path,
    undisturbed: dict[int, Path],
    tally: dict[str, Counter[str]],
    plan: list[tuple[str, int, float]],
    processes: int,
) -> None:
    output = disk / "run"
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, more, seconds in plan:
        if name == "disk filled" and not disk.is_mount():
            continue
        fault, code = FAULTS[name]
        by_itself = name == "killed before an operation"
        started = job(output, processes, operation=more * 4 + 1 if by_itself else 0)
        trains = name != "killed"  # The others are for programs that have begun to train.
        until = 1_000 if by_itself else steps(output) + more + trains
        while all(process.is_alive() for process in started) and steps(output) < until:
            time.sleep(0.005)
        time.sleep(seconds)
        held = saved(output)
        fault(started, output)
        ended = exit_codes(started)
        # One whose other process has ended fails.
        expected = {0, code, 1} if processes > 1 else {0, code}
        assert set(ended) <= expected, f"{name}: {ended}, see {output.with_suffix('.log')}"
        again = steps(output) - saved(output)
        tally[name].update(times=1, again=max(again, 0), lost=max(held - saved(output), 0))
        assert saved(output) >= held, f"{name}: a checkpoint of step {held} is lost"
        assert again <= 0 or name not in LOSE_NOTHING
    finish(output, processes)
    assert not differences(output, undisturbed[processes])
