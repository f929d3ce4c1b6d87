"""``seeking`` in processes of its own, forked from one that has imported everything."""

import contextlib
import json
import multiprocessing
import os
import shlex
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from safetensors.torch import load_file

from seeking.checkpointing import snapshot

OPTIONS = shlex.split("""
    --max-train-samples 128 --batch-size 16 --epochs 4 --save-every 3 --condition decrease:1 --norm recalibrated
    --base-kwargs width=4 --motivated-kwargs width=6
""")

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["datasets", "sklearn.datasets", "timm.optim", "torchvision", "seeking.report.plots"])


def job(output: Path, processes: int = 1, operation: int = 0) -> list[BaseProcess]:
    """Start a run, or resume it, by one process or by several as torchrun does.

    Args:
        output: the run's folder.
        processes: how many.
        operation: before which operation on a file of the run the program is killed; 0 is never.
    """
    started = []
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    address |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    for rank in range(processes):
        ranks = {**address, "RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        process = forks.Process(target=_train, args=(output, ranks, operation))
        process.start()
        started.append(process)
    return started


def command(folder: Path, arguments: Sequence[str]) -> BaseProcess:
    """Start ``seeking`` in a folder, by one thread."""
    process = forks.Process(target=_command, args=(folder, arguments))
    process.start()
    return process


def exit_codes(started: list[BaseProcess]) -> list[int]:
    """Wait; the exit codes, or minus the signals that ended the programs."""
    for process in started:
        process.join(timeout=300)
        assert process.exitcode is not None, "the program hangs"
    return [process.exitcode or 0 for process in started]


def steps(output: Path) -> int:
    """How many steps are in the record of a run."""
    with contextlib.suppress(OSError):
        return (output / "metrics.jsonl").read_text().count('"kind": "step"')
    return 0


def saved(output: Path) -> int:
    """The step of the newest checkpoint."""
    checkpoints = snapshot.list_checkpoints(output / "checkpoints")
    return int(checkpoints[0].name.partition("-")[2]) if checkpoints else 0


def differences(run: Path, other: Path) -> list[str]:
    """The files of two runs that differ: metrics, weights, results."""
    same = {"metrics.jsonl": (run / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()}
    for name in ("base.last", "base.best", "motivated.last", "motivated.best"):
        ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (run, other))
        same[name] = ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (run, other)]
    same["summary.json"] = all(summaries[0][key] == summaries[1][key] for key in ("metrics", "best", "cost"))
    return [name for name, is_same in same.items() if not is_same]


def _command(folder: Path, arguments: Sequence[str]) -> None:
    """Be the program."""
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    from seeking import cli
    from seeking.experiments import parallel

    parallel.START_METHOD = "fork"  # Without the imports of each process that it starts.
    sys.exit(cli.main(arguments))


def _train(output: Path, ranks: dict[str, str], operation: int) -> None:
    """Be the program."""
    log = os.open(output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(ranks)
    from seeking import cli  # It looks at the environment as it is imported.
    from seeking.report import plots

    plots.draw = lambda *given: None  # A second for each of hundreds of runs.
    if operation:
        _die_before(operation, output)
    code: object = 1
    try:
        code = cli.main(["train", *OPTIONS, "--resume", "--output", str(output)])
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


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
