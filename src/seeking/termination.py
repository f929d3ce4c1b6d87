"""Signals that end this program, outside of training, where nothing has to be saved."""

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from seeking.errors import EXIT_INTERRUPTED, EXIT_SAVED


class EndedBySignal(SystemExit):
    """Ends this program; not what code that is called in it may call ``sys.exit`` for."""


@contextlib.contextmanager
def ending_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end this program with the exit code that they have in training, unless they are
    handled or ignored, as SIGHUP is by ``nohup``.

    During an import, they and Ctrl-C end the program at once: an exception there may be lost in what is imported, which
    is then half there. Runs handle both themselves while they train. Processes that are forked end as they would
    without this.
    """
    program = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != program:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        interrupted, importing = number == signal.SIGINT, _is_importing(frame)
        if importing or not interrupted:
            name = signal.Signals(number).name
            os.write(2, b"seeking: interrupted\n" if interrupted else f"seeking: stopped by {name}\n".encode())
        if importing:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(EXIT_INTERRUPTED if interrupted else EXIT_SAVED)
        raise KeyboardInterrupt if interrupted else EndedBySignal(EXIT_SAVED)

    def end_at_once(number: int, frame: FrameType | None) -> None:
        os._exit(EXIT_INTERRUPTED)

    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    handled = [number for number, handler in usual.items() if signal.getsignal(number) == handler]
    for number in handled:
        signal.signal(number, end)
    if signal.SIGINT in handled:  # Python takes its handlers away as it ends; what is registered first comes last.
        atexit.register(_ignore, signal.SIGINT, end_at_once)
    try:
        yield
    finally:  # All results are written.
        for number in handled:
            signal.signal(number, end_at_once if number == signal.SIGINT else signal.SIG_IGN)


def _ignore(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
    """Ignore a signal from now on, if this still handles it."""
    if signal.getsignal(number) == handler:
        signal.signal(number, signal.SIG_IGN)


def _is_importing(frame: FrameType | None) -> bool:
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None
