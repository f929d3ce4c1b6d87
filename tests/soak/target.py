"""A way into the program, and what must hold of every input: it is refused in words, or it is right."""

import contextlib
import resource
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seeking import SeekingError

HUNG = 20.0
"""Seconds after which an input is given up."""
MEMORY = 512
"""MiB by which one input may make this program grow."""


class TooSlow(BaseException):
    """Passes what catches every Exception."""


class Offence(AssertionError):
    """An input was neither refused in words nor right, or took too much time or memory."""


class Target:
    """One way into the program, with a folder to work in.

    Attributes:
        inputs: strategy of its inputs.
        known: inputs that have once gone wrong, that no chance would find, or that are right.
        share: of the examples asked for, one in this many is drawn.
        refusals: what a refusal may be.
        seconds: of computing for one input.
    """

    inputs: st.SearchStrategy[Any]
    known: Sequence[Any] = ()
    share = 1
    refusals: tuple[type[Exception], ...] = (SeekingError,)
    seconds = 2.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def scratch(self, like: Path | None = None) -> Iterator[Path]:
        """A path for one input, with a copy of a folder; gone afterwards, and all that lies beside it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            yield Path(shutil.copytree(like, Path(name) / "run")) if like else Path(name) / "run"

    def check(self, content: Any) -> None:
        """Put an input through the program; raises one of ``refusals`` if it is refused."""
        raise NotImplementedError


def peak() -> float:
    """MiB that this program has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def accepted(target: Target, content: Any) -> bool:
    """Try one input: whether it is accepted.

    Raises:
        Offence: see there.
    """

    def stop(number: int, frame: object) -> None:
        raise TooSlow(f"not done after {HUNG:.0f} s")

    refusal = None
    with contextlib.suppress(OSError):  # Linux: the peak is measured from here.
        Path("/proc/self/clear_refs").write_text("5")
    before, memory, start = signal.signal(signal.SIGALRM, stop), peak(), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, HUNG)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.check(content)
    except target.refusals as error:
        refusal = error
    except (Exception, SystemExit, TooSlow) as error:
        raise Offence(f"{type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    taken, grown = time.process_time() - start, peak() - memory
    if taken > target.seconds or grown > MEMORY or (refusal and not str(refusal)):
        raise Offence(f"{taken:.1f} s of computing, {grown:.0f} MiB of memory, {refusal!r}") from refusal
    return not refusal


def soak(target: Target, examples: int | None = None, **options: Any) -> Counter[bool]:
    """Try the known inputs and drawn ones, by default as many as the profile of hypothesis says.

    Returns:
        How many were accepted (True) and refused (False).

    Raises:
        Offence: of the smallest input found for it, which is printed.
    """
    outcomes: Counter[bool] = Counter()

    def check(content: Any) -> None:
        outcomes[accepted(target, content)] += 1

    check.__name__ = type(target).__name__  # So that hypothesis keeps the failures of each by themselves.
    test = given(target.inputs)(check)
    for content in target.known:
        test = example(content)(test)
    count = max(1, (examples or settings.default.max_examples) // target.share)
    settings(max_examples=count, suppress_health_check=list(HealthCheck), **options)(test)()
    return outcomes
