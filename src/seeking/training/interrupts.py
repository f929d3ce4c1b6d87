"""Requests from outside: to stop (a signal), or to save (the clock)."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import torch
from accelerate import Accelerator

EXIT_SAVED = 75
"""Exit code of a run that SIGTERM has stopped and that has saved: "try again later" (EX_TEMPFAIL of sysexits.h)."""

SAME_INTERRUPT_SECONDS = 2.0
"""Within this time a launcher passes on to its processes the Ctrl-C that they have received themselves."""


class Stopped(BaseException):
    """Unwinds a run that has been asked to stop."""


class Requests:
    """What has been asked of a run.

    Args:
        accelerator: that knows the processes.
        due: whether this process would save after this batch.

    Attributes:
        signal: which signal has asked this process to stop, if any.
        save: whether all processes are to save after this batch.
    """

    def __init__(self, accelerator: Accelerator, due: Callable[[], bool]) -> None:
        self.signal: int | None = None
        self.save = False
        self._stop = False
        self._accelerator, self._due = accelerator, due

    def own(self) -> list[float]:
        """What is asked of this process, as numbers whose mean over all processes ``agree`` takes."""
        self._stop, self.save = self.signal is not None, self._due()
        return [float(self._stop), float(self.save)]

    def agree(self, means: list[float]) -> None:
        """Do what any process is asked to do."""
        self._stop, self.save = (mean > 0 for mean in means)

    def stop_after_batch(self) -> None:
        """Unwind if a stop has been asked for, in several processes before they agreed.

        Raises:
            Stopped: it has.
        """
        if self._stop if self._accelerator.num_processes > 1 else self.signal is not None:
            raise Stopped

    def stop_now(self) -> None:
        """Unwind if any process has been asked to stop; all must call this at the same place.

        Raises:
            Stopped: one has.
        """
        asked = self.signal is not None
        if self._accelerator.num_processes > 1:
            flag = torch.tensor(float(asked), device=self._accelerator.device)
            asked = bool(self._accelerator.reduce(flag, "sum") > 0)
        if asked:
            raise Stopped


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have this handler called by Ctrl-C and SIGTERM, where they are not ignored.

    Only the main thread of a program receives signals; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def listening(requests: Requests, processes: int) -> Iterator[None]:
    """Turn SIGTERM and the first Ctrl-C into requests; the second Ctrl-C interrupts at once."""
    first = 0.0
    requests.signal = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        again = number == signal.SIGINT == requests.signal
        if again and (processes == 1 or time.monotonic() - first > SAME_INTERRUPT_SECONDS):
            raise KeyboardInterrupt
        if requests.signal is None:
            requests.signal, first = number, time.monotonic()

    with handling(handle):
        yield
