"""What the benchmarks share: ratios of times taken in turns, and how they are told."""

import statistics
import time
from collections.abc import Callable, Sequence


def seconds(run: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def told(ratios: Sequence[float]) -> str:
    """The median and the interquartile range."""
    ordered = sorted(ratios)
    quarter = len(ordered) // 4
    return (
        f"{statistics.median(ordered):.3f}  (interquartile range {ordered[quarter]:.3f} to {ordered[-1 - quarter]:.3f})"
    )
