"""NaN and Inf handling: what is done about a loss or a gradient that is not finite."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seeking.errors import DivergedError, RunWarning
from seeking.training.config import NonFinitePolicy
from seeking.training.learner import Learner
from seeking.training.record import Record, Row

MAX_FAILURES = 10
"""Steps in a row that may be skipped, and roll-backs to one checkpoint, before a run is given up."""

ACTIONS = {"skip": "its step on this batch is skipped", "rollback": "both models are rolled back"}


class NonFiniteGuard:
    """Does as the policy says about each step that was not taken because it was not finite.

    Args:
        policy: what to do.
        record: of the run.
        saved: says what of the run is saved, in words.

    Attributes:
        rollback_due: the model whose step failed on this batch, if the models are to be rolled back for it.
    """

    def __init__(self, policy: NonFinitePolicy, record: Record, saved: Callable[[], str]) -> None:
        self.record = record
        self._policy, self._saved = policy, saved
        self._failures = {"base": 0, "motivated": 0}
        """Steps in a row that were not finite, by model."""
        self._rollbacks: dict[str, int] = {}
        """How often the run has been rolled back to each step."""
        self.rollback_due: Learner | None = None

    def succeeded(self, learner: Learner) -> None:
        """A step was taken."""
        self._failures[learner.name] = 0

    def failed(self, learner: Learner, *, step: int, epoch: int, rate: float, loss: float, norm: float) -> None:
        """A step was not taken.

        Raises:
            DivergedError: the policy is to stop, or there have been too many in a row.
        """
        self._failures[learner.name] += 1
        what = f"loss became {loss}" if not math.isfinite(loss) else f"gradient has the norm {norm}"
        text = f"the {learner.name} model's {what} at step {step} (epoch {epoch + 1}, learning rate {rate:.3g})"
        if self._policy == "stop" or self._failures[learner.name] >= MAX_FAILURES:
            raise DivergedError(f"{text}{self._report(learner)}")
        if self._policy == "rollback":
            self.rollback_due = learner
        self.record.log({"kind": "nonfinite", "step": step, "model": learner.name, "action": self._policy})
        warnings.warn(f"{text}; {ACTIONS[self._policy]}", RunWarning, stacklevel=2)

    def rolled_back(self, step: int) -> None:
        """The models were rolled back to a step.

        Raises:
            DivergedError: too often.
        """
        assert self.rollback_due
        learner, self.rollback_due = self.rollback_due, None
        count = self._rollbacks[str(step)] = self._rollbacks.get(str(step), 0) + 1
        if count > MAX_FAILURES:
            raise DivergedError(f"the {learner.name} model fails again and again{self._report(learner)}")

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"failures": dict(self._failures), "rollbacks": dict(self._rollbacks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from these counts."""
        self._failures.update({str(name): int(count) for name, count in state["failures"].items()})
        self._rollbacks = {str(step): int(count) for step, count in state["rollbacks"].items()}

    def _report(self, learner: Learner) -> str:
        """What is left of the run, its last steps, and what to try."""
        again = ""
        failures, rollbacks = self._failures[learner.name], sum(self._rollbacks.values())
        if failures > 1 or rollbacks:
            again = f", after {failures - 1} such steps in a row and {rollbacks} roll-backs"
        hint = "Try a lower lr, a warm-up, or clip_grad; or on_nonfinite skip or rollback"
        return "\n".join([f"{again}; {self._saved()}. {hint}", *_last_steps(self.record.history, learner)])


def _last_steps(history: Sequence[Row], learner: Learner) -> list[str]:
    prefix = learner.column_prefix
    last = [row for row in history if row["kind"] == "step" and f"{prefix}loss" in row][-5:]
    lines = [
        f"  {row['step']:>8}  {row[f'{prefix}loss']:>12.5g}  {row[f'{prefix}grad_norm']:>13.5g}  {row['lr']:.3g}"
        for row in last
    ]
    return ["", "      step          loss  gradient norm  learning rate", *lines] if lines else []
