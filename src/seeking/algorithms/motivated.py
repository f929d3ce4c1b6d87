"""Motivated training."""

from seeking.training.run import Batch, Run


def motivated(batch: Batch, run: Run) -> None:
    """Algorithm 1 of "Motivation is Something You Need" (arXiv 2602.21064), for one batch."""
    base = run.step(run.base, batch)
    if run.decide(run.condition, run.signals(base)):
        with run.pair.motivated():
            run.condition.feedback(run.step(run.motivated, batch))
