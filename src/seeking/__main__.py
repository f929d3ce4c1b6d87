"""Starts the ``seeking`` command; imports nothing large before Ctrl-C and SIGTERM are handled."""

import sys

from seeking.errors import EXIT_INTERRUPTED
from seeking.termination import ending_by_signals


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        with ending_by_signals():
            from seeking.cli import main as run

            code = run()
            if not code:
                _leave_other_processes()
            return code
    except KeyboardInterrupt:
        print("seeking: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _leave_other_processes() -> None:
    """Leave the group of processes, if there is one: PyTorch sometimes aborts a program that ends inside.

    Only at a good end, where no process waits for another.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
