"""Interrupts: requests to stop (by a signal) or to save (by the clock)."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import torch
from accelerate import Accelerator

EXIT_SAVED = 75
"""Exit code of a run that was saved and stopped by SIGTERM: EX_TEMPFAIL of sysexits.h, "try again later"."""

SAME_INTERRUPT_SECONDS = 2.0
"""A launcher forwards Ctrl-C to processes that have received it themselves; within this time it is the same one."""


class Stopped(BaseException):
    """Raised to stop a run."""


class Requests:
    """Pending requests to a run.

    Args:
        accelerator: used to communicate between processes.
        due: returns whether this process wants to save after this batch.

    Attributes:
        signal: the signal that asked this process to stop, if any.
        save: whether all processes save after this batch.
    """

    def __init__(self, accelerator: Accelerator, due: Callable[[], bool]) -> None:
        self.signal: int | None = None
        self.save = False
        self._stop = False
        self._accelerator, self._due = accelerator, due

    def own(self) -> list[float]:
        """The requests to this process, as numbers. ``agree`` takes their means over all processes."""
        self._stop, self.save = self.signal is not None, self._due()
        return [float(self._stop), float(self.save)]

    def agree(self, means: list[float]) -> None:
        """Adopt the requests to any process, given the means of ``own`` over all processes."""
        self._stop, self.save = (mean > 0 for mean in means)

    def stop_after_batch(self) -> None:
        """Stop if requested; with several processes, only if they have agreed on it.

        Raises:
            Stopped: a stop was requested.
        """
        if self._stop if self._accelerator.num_processes > 1 else self.signal is not None:
            raise Stopped

    def stop_now(self) -> None:
        """Stop if any process was asked to; all processes must call this.

        Raises:
            Stopped: a stop was requested.
        """
        requested = self.signal is not None
        if self._accelerator.num_processes > 1:
            flag = torch.tensor(float(requested), device=self._accelerator.device)
            requested = bool(self._accelerator.reduce(flag, "sum") > 0)
        if requested:
            raise Stopped


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM with this handler, unless they are ignored.

    Signals can only be handled in the main thread; in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


@contextlib.contextmanager
def listening(requests: Requests, processes: int) -> Iterator[None]:
    """Turn SIGTERM and the first Ctrl-C into stop requests; a second Ctrl-C interrupts immediately."""
    first_time = 0.0
    requests.signal = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first_time
        second_interrupt = number == signal.SIGINT == requests.signal
        if second_interrupt and (processes == 1 or time.monotonic() - first_time > SAME_INTERRUPT_SECONDS):
            raise KeyboardInterrupt
        if requests.signal is None:
            requests.signal, first_time = number, time.monotonic()

    with handling(handle):
        yield
