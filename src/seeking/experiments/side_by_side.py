"""The runs of an experiment: made side by side, each from its beginning or on from where it was."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from seeking.data import DataConfig, ImageData, load
from seeking.errors import RunError, SeekingError
from seeking.experiments.recipe import Run, Trial
from seeking.experiments.rivals import Distilled, Sandwich
from seeking.experiments.run import RunConfig, models, trainer, weights_map
from seeking.initialization import embed
from seeking.processes import this_process
from seeking.training import RunFolder, Trainer
from seeking.training.stopping import SAVED_BY_SIGTERM, heard_by
from seeking.training.trainer import Row
from seeking.weights_files import load_fitting, load_weights

Tell = Callable[[str, Row], None]
"""Told of every row of every run, with the run's folder."""


def planned(trials: Iterable[Trial]) -> dict[str, Run]:
    """The runs of these trials by their folders, shared ones once.

    Raises:
        SeekingError: two different runs would go into one folder.
    """
    runs: dict[str, Run] = {}
    for run in (run for trial in trials for run in trial.runs):
        if runs.setdefault(run.folder, run) != run:
            raise SeekingError(f"two different runs of this recipe would go into {run.folder}; rename an arm")
    return runs


def run_all(
    trials: Iterable[Trial], root: Path, jobs: int, tell: Tell, after_each: Callable[[], None] = lambda: None
) -> dict[str, Exception]:
    """Make all runs that are not done yet, so many at a time.

    Returns:
        What went wrong with those that have failed, in the order in which they were planned.

    Raises:
        RunError: a process has died; the others are saved.
    """
    runs = planned(trials)
    waiting = {folder: run for folder, run in runs.items() if not done(root, folder)}
    failed: dict[str, Exception] = {}

    def ended(run: Run, outcome: Callable[[], None]) -> None:
        try:
            outcome()
            after_each()
        except torch.OutOfMemoryError as error:
            hint = "; fewer runs at a time may do, with --jobs" if jobs > 1 else ""
            failed[run.folder] = RunError(f"{error}{hint}")
        except RunError as error:
            failed[run.folder] = error

    if waiting:
        tell("", {"kind": "plan", "epochs": sum(run.config.epochs for run in waiting.values()), "text": "starting"})
    if waiting and jobs == 1:
        for run in waiting.values():
            if run.after not in failed:
                ended(run, functools.partial(perform, run, root, jobs, functools.partial(tell, run.folder)))
    elif waiting:
        context = multiprocessing.get_context("spawn")
        queue: Any = context.SimpleQueue()
        threads = max(1, torch.get_num_threads() // jobs)
        pool = ProcessPoolExecutor(jobs, context, _begin, (queue, threads))
        with _ended(pool):
            under_way: dict[Future[None], Run] = {}
            try:
                while waiting or under_way:
                    for folder, run in list(waiting.items()):
                        if run.after in failed:
                            del waiting[folder]
                        elif len(under_way) < jobs and (run.after is None or done(root, run.after)):
                            under_way[pool.submit(_work, run, root, jobs)] = run
                            del waiting[folder]
                    over, _ = wait(under_way, timeout=0.5, return_when=FIRST_COMPLETED)
                    while not queue.empty():
                        tell(*queue.get())
                    for future in over:
                        ended(under_way[future], future.result)
                        del under_way[future]
            except BrokenProcessPool as error:
                raise RunError(
                    f"a process has died while {', '.join(run.folder for run in under_way.values())} ran, maybe for "
                    "want of memory; the same command goes on, with --jobs 1 if need be"
                ) from error
    return {folder: failed[folder] for folder in runs if folder in failed}


@contextlib.contextmanager
def _ended(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM end the program; however it ends, the pool's runs save and end before it does.

    Nothing may interrupt the wait for that, as the pool would then never end: a second SIGTERM (schedulers send it
    twice) is not heard, a second Ctrl-C ends the runs without saving.
    """

    def heard(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if number == signal.SIGINT:
            signal.signal(number, again)
            raise KeyboardInterrupt
        raise SystemExit(SAVED_BY_SIGTERM)

    def again(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with heard_by(heard):
        try:
            yield
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


_queue: Any = None
_at_work = False


def _begin(queue: Any, threads: int) -> None:
    global _queue
    _queue = queue
    torch.set_num_threads(threads)
    # Ctrl-C is the main process' to hear, which passes it on. A worker that waits must not be killed: it holds a lock
    # that the others need to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_follow, daemon=True).start()


def _stop(number: int, frame: FrameType | None) -> None:
    if _at_work:
        raise SystemExit(SAVED_BY_SIGTERM)


def _follow() -> None:
    """When the main process is gone, save and end as well."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    while _at_work:
        time.sleep(0.1)
    os._exit(SAVED_BY_SIGTERM)


def _work(run: Run, root: Path, jobs: int) -> None:
    global _at_work
    _at_work = True
    try:
        perform(
            run, root, jobs, lambda row: _queue.put((run.folder, row)) if row["kind"] in ("start", "eval") else None
        )
    finally:
        _at_work = False


def done(root: Path, folder: str) -> bool:
    """Whether a run has come to its end before."""
    return (root / folder / "summary.json").exists()


@functools.lru_cache(maxsize=2)
def data_of(config: DataConfig, jobs: int) -> ImageData:
    """A data set, loaded once for all runs of this process, of which there are so many."""
    return load(config, jobs)


def data_config(config: RunConfig) -> DataConfig:
    """The part of a run's options that says which data it has."""
    return DataConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(DataConfig)})


def perform(run: Run, root: Path, jobs: int, listener: Callable[[Row], None]) -> None:
    """Train one run to its end, from its beginning or from where it was, beside the others of so many at a time."""
    config = run.config
    this_process(config.device)
    data = data_of(data_config(config), jobs)
    made = models(config, len(data.classes), data.shape[0], config.seed)
    kind: Callable[..., Trainer] = Trainer
    role = run.kind
    before = root / run.after if run.after else None
    if role == "grown":
        assert before
        load_weights(made["base"], before / "base.last.safetensors")
        found = weights_map(config, made["base"], made["motivated"], torch.zeros(2, *data.shape))
        embed(made["base"], made["motivated"], found)
        role = "motivated"
    elif role == "distilled":
        assert before
        load_weights(made["motivated"], before / "base.last.safetensors")
        knobs = {name: run.knobs[name] for name in ("weight", "temperature")}
        kind = functools.partial(Distilled, teacher=made["motivated"], **knobs)
        role = "base"
    else:
        if role == "sandwich":
            kind, role = Sandwich, "pair"
        if before:
            for name in made if role == "pair" else (role,):
                load_fitting(made[name], before / f"{name}.last.safetensors")
    folder = RunFolder(root / run.folder, resume=True)
    trainer(config, data, role, folder, [listener], made=made, kind=kind).fit()
