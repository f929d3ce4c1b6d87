"""Worker processes of loaders, and signals."""

import atexit
import contextlib
import multiprocessing
import signal
import weakref
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

from seeking.internals import is_worker_handler

_workers: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


@contextlib.contextmanager
def starting_workers(sheltered: bool = True) -> Iterator[None]:
    """Inside, a loader starts its workers.

    What would end them by SIGTERM kills them. So they end with the program, even if they hang or ignore signals.

    Args:
        sheltered: whether they do not receive SIGTERM and SIGHUP, which often go to all processes of a program at once:
            they load what the last step needs. Inside, this process does not receive it either.
    """
    before = {*multiprocessing.active_children()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP} if sheltered else ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for worker in {*multiprocessing.active_children()} - before:
            worker.terminate = worker.kill  # type: ignore[method-assign]
            _workers.add(worker)
        if is_worker_handler(signal.getsignal(signal.SIGCHLD)):
            # It would raise in the middle of a step when a worker dies. The loader notices it between steps.
            with contextlib.suppress(ValueError):  # Outside the main thread.
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@atexit.register
def _kill_workers() -> None:
    """At the exit of the program, which then waits for all its processes; those of an earlier fork are not its own."""
    for worker in {*multiprocessing.active_children()} & {*_workers}:
        worker.kill()
