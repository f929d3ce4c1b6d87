"""Starts the ``seeking`` command; imports nothing large before Ctrl-C and SIGTERM are handled."""

import sys

from seeking.errors import EXIT_INTERRUPTED
from seeking.termination import ending_by_signals


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        with ending_by_signals():
            from seeking.cli import main as run

            return run()
    except KeyboardInterrupt:
        print("seeking: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
