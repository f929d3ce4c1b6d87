"""Being asked to stop."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SAVED_BY_SIGTERM = 75
"""Exit code of a run that SIGTERM has stopped and that has saved: "try again later" (EX_TEMPFAIL of sysexits.h)."""

SAME_PRESS = 2.0
"""Seconds within which a launcher passes on to each of its processes the Ctrl-C that they have had themselves."""


class Stopped(BaseException):
    """Unwinds a run that has been asked to stop."""


class StopRequest:
    """Which signal has asked the run to stop, if any."""

    signal: int | None = None


@contextlib.contextmanager
def heard_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have this handler called by Ctrl-C and SIGTERM, where they are not ignored.

    Only the main thread of a program hears signals; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = (number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN)
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def stop_requests(processes: int) -> Iterator[StopRequest]:
    """Turn SIGTERM and the first Ctrl-C into requests; the second Ctrl-C interrupts at once."""
    request, first = StopRequest(), 0.0

    def heard(number: int, frame: FrameType | None) -> None:
        nonlocal first
        again = number == signal.SIGINT == request.signal
        if again and (processes == 1 or time.monotonic() - first > SAME_PRESS):
            raise KeyboardInterrupt
        if request.signal is None:
            request.signal, first = number, time.monotonic()

    with heard_by(heard):
        yield request
