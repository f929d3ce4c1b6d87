"""Text on the terminal, whatever its encoding and whatever names the text holds."""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from seeking.errors import RunError
from seeking.escapes import printable
from seeking.files import reason

USUAL_WIDTH = 80
"""Of a terminal that has none."""

_COLORS = re.compile("\x1b\\[[0-9;]*m")

_SUBSTITUTES = str.maketrans({"×": "x", "±": "+/-", "…": "...", "–": "-"})
"""For terminals that lack these."""


class PrintableConsole(Console):
    """A console that escapes the control characters of what is printed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it, and escape."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def tell(self, text: str) -> None:
        """Print a text as it is: neither wrapped, which only a terminal does, nor highlighted."""
        self.print(text, highlight=False, soft_wrap=True)


def is_main_process() -> bool:
    """Whether this process prints and writes files; torchrun and accelerate start several processes."""
    return os.environ.get("RANK", "0") == "0"


def make_console(stderr: bool = False) -> PrintableConsole:
    """A console on standard output, or error; silent in all processes but the main one."""
    console = PrintableConsole(stderr=stderr, quiet=not is_main_process(), markup=False)
    if console.width < 1:  # By COLUMNS, as schedulers set it.
        console.width = USUAL_WIDTH
    return console


def print_text(text: object, file: TextIO | None = None) -> None:
    """Print text with control characters escaped."""
    print(printable(text), file=file)


class _Stream:
    """A stream that is never an error to write to: what its encoding lacks is replaced, what fails is ignored.

    Attributes:
        failure: the first error in writing, but that of a reader who has gone, as of ``head``.
    """

    def __init__(self, stream: Any) -> None:
        self.failure: OSError | None = None
        # None: it was closed when the program began. Its descriptor is taken, lest a file of the run gets it.
        self._stream = Path(os.devnull).open("w", encoding="utf-8") if stream is None else stream  # noqa: SIM115

    def write(self, text: str) -> int:
        with self._noting():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                plain = text.translate(_SUBSTITUTES).encode(encoding, "backslashreplace")
                self._stream.write(plain.decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._noting():
            self._stream.flush()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            pass
        except OSError as error:
            self.failure = self.failure or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _PlainStream(_Stream):
    """A stream without colors, which escapes all other control characters."""

    def write(self, text: str) -> int:
        return super().write(printable(_COLORS.sub("", text)))


@contextlib.contextmanager
def ignore_output_errors() -> Iterator[None]:
    """Inside, failing to print (say, to a file on a full disk) does not end a run."""
    with contextlib.redirect_stdout(_Stream(sys.stdout)), contextlib.redirect_stderr(_Stream(sys.stderr)):
        yield


def check_output() -> None:
    """Make sure that what was printed inside ``ignore_output_errors`` has been written, for commands that only print.

    Raises:
        RunError: it could not be.
    """
    sys.stdout.flush()
    if (failure := getattr(sys.stdout, "failure", None)) is not None:
        raise RunError(f"standard output cannot be written ({reason(failure)}), so the result is not complete")


def plain_errors() -> contextlib.AbstractContextManager[object]:
    """Inside, what is printed as an error is escaped."""
    return contextlib.redirect_stderr(_PlainStream(sys.stderr))
