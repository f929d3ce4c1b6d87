"""Ordinary training of one model."""

from seeking.training.run import Batch, Run


def alone(batch: Batch, run: Run) -> None:
    """Take one step of the model."""
    (learner,) = run.learners.values()
    run.step(learner, batch)
