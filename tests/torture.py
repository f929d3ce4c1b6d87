"""What a run survives: faults in numbers, each followed by going on and comparing with a run that nothing happened to.

    python tests/torture.py --scale 1

prints for each kind of fault how often it was tried, how many runs went on from a checkpoint, how many steps had to be
taken again, how many of them a checkpoint had already held (which must be none), and how many differences of the end
result from that of the undisturbed run were found (which must be none).
"""

import argparse
import contextlib
import functools
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # Programs are forked below, which threads would not survive.

import datasets  # noqa: F401 (all that programs would import, once)
import psutil
import sklearn.datasets  # noqa: F401
import timm.optim  # noqa: F401
import torch
from safetensors.torch import load_file

from seeking import cli
from seeking.checkpointing import snapshot
from seeking.errors import SeekingError
from seeking.report import plots

SAVE_EVERY = 3
OPTIONS = [
    "--max-train-samples",
    "128",
    "--batch-size",
    "16",
    "--save-every",
    str(SAVE_EVERY),
    "--condition",
    "decrease:1",
]
OPTIONS += ["--base-kwargs", "width=4", "--motivated-kwargs", "width=6", "--norm", "recalibrated"]


@dataclass
class Tally:
    """What was tried, and what came of it."""

    fault: str
    tried: int = 0
    resumed: int = 0
    repeated: int = 0
    lost: int = 0
    different: int = 0
    note: str = ""


def program(
    output: Path,
    *more: str,
    epochs: int = 4,
    inside: Callable[[], None] | None = None,
    environment: dict[str, str] | None = None,
) -> int:
    """Start ``seeking train --resume`` in a process of its own; its number."""
    arguments = ["train", *OPTIONS, "--epochs", str(epochs), "--resume", "--output", str(output), *more]
    child = os.fork()
    if child:
        return child
    code: object = 99
    plots.draw = lambda *given: None  # A second for each of hundreds of runs.
    try:
        log = os.open(output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if inside:
            inside()
        if environment:
            os.environ.update(environment)
        code = cli.main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 99)


def ended(child: int) -> int:
    """Wait for a program; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def running(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def steps(output: Path) -> int:
    """How many steps are in the record of a run."""
    with contextlib.suppress(OSError):
        return sum(
            '"kind": "step"' in line for line in (output / "metrics.jsonl").read_text().splitlines(keepends=True)
        )
    return 0


def saved(output: Path) -> int:
    """The step of the newest checkpoint."""
    there = snapshot.list_checkpoints(output / "checkpoints")
    return int(there[0].name.partition("-")[2]) if there else 0


def when_it_trains(child: int, output: Path, more: int = 1) -> None:
    """Wait until a program has taken some more steps."""
    before = steps(output)
    while running(child) and steps(output) < before + more:
        time.sleep(0.005)


def differs(one: Path, other: Path) -> bool:
    """Whether two runs ended differently: in weights, decisions or metrics."""
    if (one / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes():
        return True
    for name in ("base.last", "base.best", "motivated.last", "motivated.best"):
        ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (one, other))
        if ours.keys() != theirs.keys() or any(not torch.equal(tensor, theirs[key]) for key, tensor in ours.items()):
            return True
    results = [json.loads((folder / "summary.json").read_text()) for folder in (one, other)]
    return any(results[0][key] != results[1][key] for key in ("metrics", "best", "cost"))


class Torture:
    """Runs in a folder of their own, beside one that nothing happens to."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.number = 0
        self.references: dict[int, Path] = {}

    def reference(self, epochs: int = 4) -> Path:
        if epochs not in self.references:
            path = self.references[epochs] = self.folder / f"undisturbed-{epochs}"
            assert ended(program(path, epochs=epochs)) == 0, path.with_suffix(".log").read_text()
        return self.references[epochs]

    def fresh(self) -> Path:
        self.number += 1
        return self.folder / f"run-{self.number}"

    def after(self, tally: Tally, output: Path, held: int | None = None) -> None:
        """Count what a fault has cost: steps to be taken again, and steps that a checkpoint had held."""
        tally.tried += 1
        tally.repeated += max(0, steps(output) - saved(output))
        tally.lost += max(0, held - saved(output)) if held is not None else 0
        tally.resumed += bool(snapshot.list_checkpoints(output / "checkpoints"))

    def finish(self, tally: Tally, output: Path, epochs: int = 4) -> None:
        """Go on to the end without a fault, and compare."""
        code = ended(program(output, epochs=epochs))
        wrong = code != 0 or differs(output, self.reference(epochs))
        if wrong:
            print(f"{tally.fault}: exit code {code}, see {output.with_suffix('.log')}", flush=True)
        else:
            shutil.rmtree(output)
        tally.different += wrong

    def kill_at_random(self, count: int) -> Tally:
        """SIGKILL at random moments of a run's life, start and saving included."""
        tally, epochs = Tally("SIGKILL at a random moment"), min(60, 3 * count)
        self.reference(epochs)
        inside = 0
        while tally.tried < count:
            output = self.fresh()
            while tally.tried < count:
                child = program(output, epochs=epochs)
                patience = time.monotonic() + self.random.uniform(0, 3)
                while running(child) and time.monotonic() < patience:
                    time.sleep(0.002)
                if not running(child):
                    break
                held = saved(output)
                os.kill(child, signal.SIGKILL)
                ended(child)
                inside += bool(list((output / "checkpoints").glob(".*")))
                self.after(tally, output, held)
            else:
                self.finish(tally, output, epochs)
                break
            assert ended(child) == 0, output.with_suffix(".log").read_text()
            self.finish(tally, output, epochs)
        tally.note = f"{inside} of them inside a save"
        return tally

    def kill_at_every_operation(self, stride: int) -> Tally:
        """SIGKILL before the first, second, … operation on the files of a run."""
        tally = Tally("SIGKILL before each file operation")
        place = self.random.randrange(stride) + 1
        while True:
            output = self.fresh()
            child = program(output, epochs=2, inside=functools.partial(_die_before, place, output))
            code = ended(child)
            if code == 0:
                return tally
            assert code == -signal.SIGKILL, output.with_suffix(".log").read_text()
            self.after(tally, output)
            self.finish(tally, output, epochs=2)
            place += stride

    def ask_to_stop(self, count: int, number: signal.Signals, code: int) -> Tally:
        """A signal that asks for a stop: the step is finished and saved, and the program leaves within ten seconds."""
        tally, slowest = Tally(f"{number.name}: stop and save"), 0.0
        for _ in range(count):
            output = self.fresh()
            child = program(output)
            when_it_trains(child, output, self.random.randrange(1, 16))
            time.sleep(self.random.uniform(0, 0.05))
            start = time.monotonic()
            os.kill(child, number)
            found = ended(child)
            slowest = max(slowest, time.monotonic() - start)
            if found != 0:  # It may have ended just before.
                assert found == code, output.with_suffix(".log").read_text()
                tally.lost += steps(output) - saved(output)
                self.after(tally, output)
            self.finish(tally, output)
        tally.note = f"left within {slowest:.1f} s, exit code {code}"
        assert slowest < 10
        return tally

    def interrupt_twice(self, count: int) -> Tally:
        """Ctrl-C twice leaves at once."""
        tally = Tally("SIGINT twice: leave at once")
        for _ in range(count):
            output = self.fresh()
            child = program(output)
            when_it_trains(child, output, self.random.randrange(1, 16))
            held = saved(output)
            for _ in range(2):
                if running(child):
                    os.kill(child, signal.SIGINT)
                time.sleep(0.001)
            if (found := ended(child)) != 0:
                assert found == 130, output.with_suffix(".log").read_text()
                self.after(tally, output, held)
            self.finish(tally, output)
        return tally

    def file_size_limit(self, count: int) -> Tally:
        """No file may grow, in the middle of a run; for a while, or to its end."""
        tally = Tally("writing fails (file size limit)")
        for number in range(count):
            output = self.fresh()
            child = program(output)
            when_it_trains(child, output, self.random.randrange(1, 12))
            before = resource.prlimit(child, resource.RLIMIT_FSIZE)
            resource.prlimit(child, resource.RLIMIT_FSIZE, (self.random.randrange(0, 20_000), before[1]))
            time.sleep(self.random.uniform(0.05, 0.4))
            if number % 2 and running(child):
                resource.prlimit(child, resource.RLIMIT_FSIZE, before)
            found = ended(child)
            assert found in (0, 1), (found, output.with_suffix(".log").read_text())
            self.after(tally, output)
            self.finish(tally, output)
        return tally

    def disk_full(self, count: int) -> Tally:
        """A disk that fills up in the middle of a run, and is then emptied; or stays full to its end."""
        tally = Tally("disk full")
        for number in range(count):
            with _small_disk(self.folder / "disk", megabytes=3) as disk:
                if disk is None:
                    tally.note = "not tried: mounting needs root"
                    return tally
                output = disk / "run"
                child = program(output)
                when_it_trains(child, output, self.random.randrange(1, 12))
                with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
                    while file.write(bytes(4096)):
                        pass
                time.sleep(self.random.uniform(0.05, 0.4))
                if number % 2:
                    (disk / "filler").unlink()
                found = ended(child)
                assert found in (0, 1), output.with_suffix(".log").read_text()
                (disk / "filler").unlink(missing_ok=True)
                self.after(tally, output)
                self.finish(tally, output)
        return tally

    def read_only(self) -> Tally:
        """A folder that cannot be written is refused before anything is trained."""
        tally = Tally("read-only folder")
        with _small_disk(self.folder / "disk", megabytes=3, options="ro") as disk:
            output = disk / "run" if disk else self.folder / "closed" / "run"
            if disk is None:
                output.parent.mkdir(mode=0o555)
            log = self.folder / "read-only"
            child = program(log, "--output", str(output))
            tally.different += ended(child) != 2 or "cannot be" not in log.with_suffix(".log").read_text()
            tally.tried, tally.note = 1, "refused, exit code 2"
        return tally

    def damage(self, count: int, resumes: int) -> Tally:
        """One byte of the newest checkpoint changed, or the file cut, anywhere."""
        tally = Tally("a checkpoint's byte flipped or file cut")
        whole = self.reference()
        for number in range(count):
            output = self.fresh()
            shutil.copytree(whole if number < resumes else whole / "checkpoints", output)
            newest = snapshot.list_checkpoints(output / "checkpoints" if number < resumes else output)[0]
            file = self.random.choice(sorted(newest.iterdir()))
            content = bytearray(file.read_bytes())
            place = self.random.randrange(len(content))
            if self.random.random() < 0.5:
                content[place] ^= 1 << self.random.randrange(8)
            else:
                del content[place:]
            file.write_bytes(content)
            tally.tried += 1
            with contextlib.suppress(SeekingError):
                snapshot.read(newest)
                tally.different += 1
                print(f"{file} was changed at byte {place}, and nobody noticed", flush=True)
            if number < resumes:
                tally.resumed += 1
                tally.repeated += SAVE_EVERY
                self.finish(tally, output)
            else:
                shutil.rmtree(output)
        tally.note = f"resumed from the one before {resumes} times"
        return tally

    def two_in_one_folder(self, count: int) -> Tally:
        """A second program in the folder of a running one refuses."""
        tally = Tally("second run in one folder")
        for _ in range(count):
            output = self.fresh()
            first = program(output, epochs=12)
            when_it_trains(first, output)
            second = program(output, epochs=12)
            tally.tried += 1
            tally.different += ended(second) != 2 or "another program is training" not in _log(output)
            os.kill(first, signal.SIGTERM)
            tally.different += ended(first) != 75
            self.finish(tally, output, epochs=12)
        tally.note = "the second refused"
        return tally

    def kill_one_of_two(self, count: int) -> Tally:
        """One of two processes of a job killed: it ends, or starts again by itself; it never hangs."""
        tally = Tally("one of two processes killed")
        reference = self.folder / "undisturbed-two"
        assert not any(map(ended, two_programs(reference)))
        for number in range(count):
            output = self.fresh()
            job = _torchrun(output) if number % 2 else None
            workers = [] if job else two_programs(output)
            while steps(output) < 5 + self.random.randrange(20) and (job is None or job.poll() is None):
                time.sleep(0.01)
            if job:
                workers = [child.pid for child in psutil.Process(job.pid).children()]
            held = saved(output)
            if workers:  # Else it has ended before.
                os.kill(self.random.choice(workers), signal.SIGKILL)
            codes = [job.wait(timeout=300)] if job else [ended(worker) for worker in workers]
            self.after(tally, output, held)
            if not job:
                tally.different += 0 in codes
                codes = [ended(worker) for worker in two_programs(output)]
            tally.different += any(codes) or differs(output, reference)
        tally.note = "half of them restarted by torchrun, half by hand"
        return tally


def _log(output: Path) -> str:
    return output.with_suffix(".log").read_text()


def _die_before(number: int, folder: Path) -> None:
    """Let this program be killed right before so many operations on files in a folder."""
    events = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in events and isinstance(arguments[0], str | os.PathLike) and str(folder) in str(arguments[0]):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@contextlib.contextmanager
def _small_disk(place: Path, megabytes: int, options: str = "rw") -> Iterator[Path | None]:
    """A disk in memory, of this size; None where it cannot be had."""
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,{options}", "none", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield place if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)


def two_programs(output: Path) -> list[int]:
    """A job of two processes, as torchrun starts them; their numbers."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        job = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    job |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [program(output, environment={**job, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]


def _torchrun(output: Path) -> "subprocess.Popen[bytes]":
    """A job of two processes that torchrun starts once more when one of them dies."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--monitor-interval", "0.2", "-m", "seeking.cli", "train", *OPTIONS]
    with output.with_suffix(".log").open("ab") as log:
        # Without it torchrun's restarts fail or hang every now and then, whatever program it runs (PyTorch 2.15).
        environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        more = ["--epochs", "4", "--resume", "--output", str(output)]
        return subprocess.Popen([*command, *more], env=environment, stdout=log, stderr=log)


FAULTS: dict[str, Callable[[Torture, Callable[[int], int]], Tally]] = {
    "kill": lambda test, times: test.kill_at_random(times(200)),
    "kill-everywhere": lambda test, times: test.kill_at_every_operation(max(1, 100 // times(100))),
    "sigterm": lambda test, times: test.ask_to_stop(times(20), signal.SIGTERM, 75),
    "sigint": lambda test, times: test.ask_to_stop(times(20), signal.SIGINT, 130),
    "sigint-twice": lambda test, times: test.interrupt_twice(times(20)),
    "size-limit": lambda test, times: test.file_size_limit(times(20)),
    "disk-full": lambda test, times: test.disk_full(times(20)),
    "read-only": lambda test, times: test.read_only(),
    "damage": lambda test, times: test.damage(times(2000), times(20)),
    "two-runs": lambda test, times: test.two_in_one_folder(times(5)),
    "two-processes": lambda test, times: test.kill_one_of_two(times(6)),
}


def main() -> int:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # As in what a shell has started in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of faults")
    parser.add_argument("--only", nargs="*", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    start, bad = time.monotonic(), 0
    print("| fault | tried | went on | steps repeated | saved steps lost | differences | |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    test = Torture(folder, arguments.seed)
    for name in arguments.only:
        one = FAULTS[name](test, lambda full: max(1, round(full * arguments.scale)))
        numbers = f"{one.tried:,} | {one.resumed:,} | {one.repeated:,} | {one.lost} | {one.different}"
        print(f"| {one.fault} | {numbers} | {one.note} |", flush=True)
        bad += one.lost + one.different + (not one.tried and not one.note)
    print(f"a checkpoint every {SAVE_EVERY} steps; {(time.monotonic() - start) / 60:.0f} minutes")
    if bad:
        print(f"the runs are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
