"""SIGTERM outside of training, where nothing has to be saved."""

import os
import signal
from types import FrameType

from seeking.errors import EXIT_SAVED


def end_on_sigterm() -> None:
    """Let SIGTERM end this program with the exit code that it has in training, unless it is handled or ignored.

    Runs handle it themselves while they train. Processes that are forked end as they would without this.
    """
    program = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != program:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        os.write(2, b"seeking: stopped by SIGTERM\n")
        raise SystemExit(EXIT_SAVED)

    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)
