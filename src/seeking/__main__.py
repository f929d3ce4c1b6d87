"""Starts the ``seeking`` command; imports nothing large before Ctrl-C and SIGTERM are handled."""

import os
import signal
import sys
from types import FrameType

from seeking.errors import EXIT_SAVED


def main() -> int:
    """Run the command line; returns the exit code."""
    program = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        """Runs handle SIGTERM themselves while they train; elsewhere, nothing has to be saved before the end."""
        if os.getpid() != program:  # A process that was forked ends as it would without this.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        os.write(2, b"seeking: stopped by SIGTERM\n")
        raise SystemExit(EXIT_SAVED)

    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)
    try:
        from seeking.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("seeking: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
