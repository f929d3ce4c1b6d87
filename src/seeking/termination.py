"""SIGTERM and Ctrl-C outside of training, where nothing has to be saved."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from seeking.errors import EXIT_SAVED


@contextlib.contextmanager
def ending_by_signals() -> Iterator[None]:
    """Inside, SIGTERM ends this program with the exit code that it has in training, unless it is handled or ignored.

    During an import, it and Ctrl-C end the program at once: an exception there may be lost in what is imported, which
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
            os.write(2, b"seeking: interrupted\n" if interrupted else b"seeking: stopped by SIGTERM\n")
        if importing:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(130 if interrupted else EXIT_SAVED)
        raise KeyboardInterrupt if interrupted else SystemExit(EXIT_SAVED)

    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    handled = [number for number, handler in usual.items() if signal.getsignal(number) == handler]
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        if signal.SIGTERM in handled:  # Python takes its handlers away as it ends, after all results are written.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _is_importing(frame: FrameType | None) -> bool:
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None
