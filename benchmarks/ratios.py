"""Helpers for the benchmarks: timing, and summaries of ratios."""

import statistics
import time
from collections.abc import Callable, Sequence


def seconds(run: Callable[[], object]) -> float:
    """Time of one call in seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def summary(ratios: Sequence[float]) -> str:
    """The median and the interquartile range."""
    ordered = sorted(ratios)
    quarter = len(ordered) // 4
    return (
        f"{statistics.median(ordered):.3f}  (interquartile range {ordered[quarter]:.3f} to {ordered[-1 - quarter]:.3f})"
    )
