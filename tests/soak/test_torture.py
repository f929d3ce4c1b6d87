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

Fault = Callable[[list[BaseProcess], Path], tuple[int, ...]]
"""What is done to a job and the run's folder; the exit codes that it may end with."""


def _signal(started: list[BaseProcess], number: int) -> None:
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid or 0, number)


def killed(started: list[BaseProcess], output: Path) -> tuple[int, ...]:
    _signal(started, signal.SIGKILL)
    return (-signal.SIGKILL,)


def one_killed(started: list[BaseProcess], output: Path) -> tuple[int, ...]:
    """The others of its job end as well."""
    _signal(started[-1:], signal.SIGKILL)
    return (-signal.SIGKILL,)


def killed_before_an_operation(started: list[BaseProcess], output: Path) -> tuple[int, ...]:
    """By itself: see ``programs.job``."""
    return (-signal.SIGKILL,)


def terminated(started: list[BaseProcess], output: Path) -> tuple[int, ...]:
    _signal(started, signal.SIGTERM)
    return (75,)


def interrupted(started: list[BaseProcess], output: Path) -> tuple[int, ...]:
    _signal(started, signal.SIGINT)
    return (130,)


def interrupted_twice(started: list[BaseProcess], output: Path) -> tuple[int, ...]:
    """It leaves at once."""
    for _ in range(2):
        _signal(started, signal.SIGINT)
        time.sleep(0.001)
    return (130,)


def file_size_limited(started: list[BaseProcess], output: Path) -> tuple[int, ...]:
    """No file may grow, for a while or to the end of the run."""
    with contextlib.suppress(ProcessLookupError):
        for process in started:
            before = resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE, (random.randrange(20_000), before[1]))
        time.sleep(random.uniform(0.05, 0.4))
        for process in started if random.random() < 0.5 else ():
            resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE, before)
    return (1,)


def disk_filled(started: list[BaseProcess], output: Path) -> tuple[int, ...]:
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
    return (1,)


FAULTS: tuple[Fault, ...] = (
    killed,
    killed_before_an_operation,
    terminated,
    interrupted,
    interrupted_twice,
    file_size_limited,
    disk_filled,
)
LOSE_NOTHING = (terminated, interrupted)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk in memory; a folder where only root may mount one."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield folder
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A run that nothing happens to, by one process and by two."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runs = {processes: folder / str(processes) for processes in (1, 2)}
    for processes, output in runs.items():
        assert set(exit_codes(job(output, processes))) == {0}, output.with_suffix(".log").read_text()
    return runs


@pytest.fixture(scope="module")
def tally() -> Iterator[dict[str, Counter[str]]]:
    counts: dict[str, Counter[str]] = {}
    yield counts
    print("\n| fault | times | steps taken again | saved steps lost |\n| --- | --- | --- | --- |")
    for name, count in counts.items():
        print(f"| {name.replace('_', ' ')} | {count['times']} | {count['again']} | {count['lost']} |")


moments = st.tuples(st.integers(0, 30), st.floats(0, 0.1))
"""When a fault comes: after so many more steps, and seconds."""


@settings(
    max_examples=max(1, settings.default.max_examples // 250),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(st.lists(st.tuples(st.sampled_from(FAULTS), moments), min_size=1, max_size=4), st.sampled_from((1, 1, 1, 2)))
@example([(killed, (4, 0.0)), (terminated, (5, 0.01)), (killed_before_an_operation, (10, 0.0))], 1)
@example([(interrupted, (7, 0.0)), (file_size_limited, (2, 0.0)), (interrupted_twice, (4, 0.0))], 1)
@example([(disk_filled, (5, 0.0)), (killed, (0, 0.1))], 1)
@example([(one_killed, (11, 0.0)), (terminated, (3, 0.0))], 2)
def test_a_run_that_is_disturbed_and_resumed_ends_as_if_it_had_not_been(
    disk: Path,
    undisturbed: dict[int, Path],
    tally: dict[str, Counter[str]],
    plan: list[tuple[Fault, tuple[int, float]]],
    processes: int,
) -> None:
    output = disk / "run"
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for fault, (more, seconds) in plan:
        if fault is disk_filled and not disk.is_mount():
            continue
        by_itself = fault is killed_before_an_operation
        started = job(output, processes, operation=more * 4 + 1 if by_itself else 0)
        trains = fault is not killed  # The others are for programs that have begun to train.
        until = 1_000 if by_itself else steps(output) + more + trains
        while all(process.is_alive() for process in started) and steps(output) < until:
            time.sleep(0.005)
        time.sleep(seconds)
        held = saved(output)
        codes = fault(started, output)
        ended = exit_codes(started)
        # One whose other process has ended fails.
        lonely = {1} if processes > 1 else set()
        assert set(ended) <= {0, *codes, *lonely}, f"{fault.__name__}: {ended}, see {output.with_suffix('.log')}"
        again = steps(output) - saved(output)
        counts = tally.setdefault(fault.__name__, Counter())
        counts.update(times=1, again=max(again, 0), lost=max(held - saved(output), 0))
        assert saved(output) >= held, f"{fault.__name__}: a checkpoint of step {held} is lost"
        assert again <= 0 or fault not in LOSE_NOTHING
    assert set(exit_codes(job(output, processes))) == {0}, output.with_suffix(".log").read_text()
    assert not differences(output, undisturbed[processes])
