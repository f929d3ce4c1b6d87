"""Train the runs of an experiment in parallel processes; unfinished runs are resumed."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from seeking.checkpointing.run_dir import RunFolder
from seeking.choices import Loss
from seeking.data import DataConfig
from seeking.distributed.processes import this_process
from seeking.errors import EXIT_SAVED, RunError, SeekingError, naming
from seeking.experiments.config import RunConfig
from seeking.experiments.methods import Start, methods
from seeking.experiments.recipe import Run, Trial
from seeking.experiments.run import arguments, check_names, models, trainer
from seeking.experiments.start import check_start
from seeking.experiments.tasks import TaskData, task
from seeking.training.interrupts import handling
from seeking.training.record import Row

START_METHOD = "spawn"
"""How processes start: those that are forked cannot use a GPU that this one has used."""

RunListener = Callable[[str, Row], None]
"""Called with the folder of a run and each of its rows."""


def runs_by_folder(trials: Iterable[Trial]) -> dict[str, Run]:
    """The runs of these trials by folder; a run that several trials share is included once.

    Raises:
        SeekingError: two different runs have the same folder.
    """
    runs: dict[str, Run] = {}
    for run in (run for trial in trials for run in trial.runs):
        if runs.setdefault(run.folder, run) != run:
            raise SeekingError(f"two different runs of this recipe have the folder {run.folder}; rename an arm")
    return runs


def check_trials(trials: Iterable[Trial]) -> None:
    """Check the options of these trials before the first one is trained.

    Raises:
        SeekingError: of a run, with its folder.
    """
    for run in runs_by_folder(trials).values():
        config = run.config
        with naming(run.folder):
            check_names(config)
            check_start(config.start_from, config.pretrained, arguments(config, {}), config.shared_from, config.extra)


def run_all(
    trials: Iterable[Trial], root: Path, jobs: int, listener: RunListener, after_each: Callable[[], None] = lambda: None
) -> dict[str, Exception]:
    """Train all unfinished runs.

    Args:
        trials: the trials that the runs belong to.
        root: folder of the experiment.
        jobs: runs in parallel.
        listener: called with every row of every run.
        after_each: called whenever a run has finished.

    Returns:
        The error of each run that failed, by folder, in the order of the runs.

    Raises:
        RunError: a process has died; the other runs are saved.
    """
    runs = runs_by_folder(trials)
    waiting = {folder: run for folder, run in runs.items() if not is_finished(root, folder)}
    failed: dict[str, Exception] = {}

    def collect(run: Run, result: Callable[[], None]) -> None:
        try:
            result()
            after_each()
        except torch.OutOfMemoryError as error:
            hint = "; try fewer runs in parallel, with --jobs" if jobs > 1 else ""
            failed[run.folder] = RunError(f"{error}{hint}")
        except RunError as error:
            failed[run.folder] = error

    if waiting:
        listener("", {"kind": "plan", "epochs": sum(run.config.epochs for run in waiting.values()), "text": "starting"})
        if jobs == 1:
            for run in waiting.values():
                if run.after in failed:
                    failed[run.folder] = _not_begun(run)
                else:
                    collect(run, functools.partial(train_run, run, root, jobs, functools.partial(listener, run.folder)))
        else:
            _run_in_processes(waiting, failed, root, jobs, listener, collect)
    return {folder: failed[folder] for folder in runs if folder in failed}


def raise_failures(failed: Mapping[str, Exception]) -> None:
    """Raise the errors that ``run_all`` has returned as one, if there are any.

    Raises:
        RunError: with each of them.
    """
    if failed:
        raise RunError("\n".join(f"{folder}: {error}" for folder, error in failed.items()))


def _not_begun(run: Run) -> RunError:
    return RunError(f"not begun, since {run.after}, which it starts from, has failed")


def _run_in_processes(
    waiting: dict[str, Run],
    failed: dict[str, Exception],
    root: Path,
    jobs: int,
    listener: RunListener,
    collect: Callable[[Run, Callable[[], None]], None],
) -> None:
    """Train these runs, each in one of several processes, when what it starts from is finished.

    Raises:
        RunError: a process has died.
    """
    context = multiprocessing.get_context(START_METHOD)
    queue: Any = context.SimpleQueue()
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(jobs, context, _initialize_worker, (queue, threads))
    with _terminated_on_exit(pool):
        running: dict[Future[None], Run] = {}
        try:
            while waiting or running:
                for folder, run in list(waiting.items()):
                    if run.after in failed:
                        failed[folder] = _not_begun(run)
                        del waiting[folder]
                    elif len(running) < jobs and (run.after is None or is_finished(root, run.after)):
                        running[pool.submit(_train_in_worker, run, root, jobs)] = run
                        del waiting[folder]
                completed, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                while not queue.empty():
                    listener(*queue.get())
                for future in completed:
                    collect(running[future], future.result)
                    del running[future]
        except BrokenProcessPool as error:
            raise RunError(
                f"a process died while training {', '.join(run.folder for run in running.values())}, maybe out of "
                "memory; run the same command again to continue, with a smaller --jobs if necessary"
            ) from error


@contextlib.contextmanager
def _terminated_on_exit(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Inside, Ctrl-C, SIGTERM and SIGHUP end the program, after the runs in the pool have saved and stopped.

    Nothing may interrupt that wait, since the pool would then never shut down. So a second SIGTERM is ignored
    (schedulers send it twice), and a second Ctrl-C kills the runs without saving.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        if number == signal.SIGINT:
            signal.signal(number, kill)
            raise KeyboardInterrupt
        raise SystemExit(EXIT_SAVED)

    def kill(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with handling(stop):
        try:
            yield
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


_queue: Any = None
_training = False


def _initialize_worker(queue: Any, threads: int) -> None:
    global _queue
    _queue = queue
    torch.set_num_threads(threads)
    # Only the main process handles Ctrl-C and SIGHUP; it terminates the workers. An idle worker must not be killed,
    # since it holds a lock that the others need to shut down.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _on_sigterm)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    if _training:
        raise SystemExit(EXIT_SAVED)


def _exit_with_parent() -> None:
    """Save and exit when the main process is gone."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    while _training:
        time.sleep(0.1)
    os._exit(EXIT_SAVED)


def _train_in_worker(run: Run, root: Path, jobs: int) -> None:
    global _training
    _training = True
    try:
        train_run(
            run, root, jobs, lambda row: _queue.put((run.folder, row)) if row["kind"] in ("start", "eval") else None
        )
    finally:
        _training = False


def is_finished(root: Path, folder: str) -> bool:
    """Whether a run has finished."""
    return (root / folder / "summary.json").exists()


@functools.lru_cache(maxsize=2)
def load_cached(config: DataConfig, jobs: int, loss: Loss) -> TaskData:
    """Load a data set, once for all runs of this process; ``jobs`` runs share the machine."""
    return task(config.task).load(config, jobs, loss)


def data_config(config: RunConfig) -> DataConfig:
    """The data options of a run."""
    return DataConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(DataConfig)})


def train_run(run: Run, root: Path, jobs: int, listener: Callable[[Row], None]) -> None:
    """Train one run to its end; resume it if it has a checkpoint. ``jobs`` runs share the machine."""
    config = run.config
    this_process(config.device)
    data = load_cached(data_config(config), jobs, config.loss)
    initial = models(config, data.model_arguments, config.seed)
    previous = root / run.after if run.after else None
    start = Start(run.stage, config, initial, run.settings, previous, data)
    with naming(run.folder):
        arguments = methods()[run.method].begin(start)
        folder = RunFolder(root / run.folder, resume=True)
        trainer(config, data, run.stage.role, folder, [listener], initial=initial, **arguments).fit()
