"""NaN and Inf handling: skip, roll back or stop when a loss or a gradient is not finite."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from seeking.errors import DivergedError, RunWarning
from seeking.training.config import NonFinitePolicy
from seeking.training.learner import Learner
from seeking.training.record import Record, Row

MAX_FAILURES = 10
"""Consecutive failed steps, and rollbacks to one checkpoint, after which the run stops."""

ACTIONS = {"skip": "its step on this batch is skipped", "rollback": "both models are rolled back"}
UNLABELED = ". Inputs with a NaN, or labels that are all -100, make the mean loss NaN, too"
"""Hint of other causes than divergence."""
HALF = (
    "The model's weights are float16, in which small numbers of optimizers are 0: make it in float32, such as by "
    "from_pretrained(..., dtype=torch.float32); precision says what is computed in fewer bits"
)
"""Hint of a likely cause."""


class NonFiniteGuard:
    """Applies the policy to each step that was not taken because its loss or gradient was not finite.

    Args:
        policy: ``stop``, ``skip`` or ``rollback``.
        record: record of the run.
        saved: describes what is saved of the run, for error messages.

    Attributes:
        rollback_due: the model whose step failed on this batch, if a rollback is due.
    """

    def __init__(self, policy: NonFinitePolicy, record: Record, saved: Callable[[], str]) -> None:
        self.record = record
        self._policy, self._saved = policy, saved
        self._failures = {"base": 0, "motivated": 0}
        """Consecutive failed steps of each model."""
        self._rollbacks: dict[str, int] = {}
        """Number of rollbacks to each step."""
        self.rollback_due: Learner | None = None

    def succeeded(self, learner: Learner) -> None:
        """Record that a step was taken."""
        self._failures[learner.name] = 0

    def failed(self, learner: Learner, *, step: int, epoch: int, rate: float, loss: float, norm: float) -> None:
        """Record that a step was not taken.

        Raises:
            DivergedError: the policy is ``stop``, or too many consecutive steps failed.
        """
        self._failures[learner.name] += 1
        problem = f"loss became {loss}" if not math.isfinite(loss) else f"gradient norm is {norm}"
        text = f"the {learner.name} model's {problem} at step {step} (epoch {epoch + 1}, learning rate {rate:.3g})"
        if self._policy == "stop" or self._failures[learner.name] >= MAX_FAILURES:
            raise DivergedError(f"{text}{self._report(learner, UNLABELED if math.isnan(loss) else '')}")
        if self._policy == "rollback":
            self.rollback_due = learner
        self.record.log({"kind": "nonfinite", "step": step, "model": learner.name, "action": self._policy})
        warnings.warn(f"{text}; {ACTIONS[self._policy]}", RunWarning, stacklevel=2)

    def rolled_back(self, step: int) -> None:
        """Record a rollback to a step.

        Raises:
            DivergedError: too many rollbacks to this step.
        """
        assert self.rollback_due
        learner, self.rollback_due = self.rollback_due, None
        count = self._rollbacks[str(step)] = self._rollbacks.get(str(step), 0) + 1
        if count > MAX_FAILURES:
            raise DivergedError(f"the {learner.name} model keeps failing{self._report(learner)}")

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"failures": dict(self._failures), "rollbacks": dict(self._rollbacks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from these counts."""
        self._failures.update({str(name): int(count) for name, count in state["failures"].items()})
        self._rollbacks = {str(step): int(count) for step, count in state["rollbacks"].items()}

    def _report(self, learner: Learner, more: str = "") -> str:
        """What is saved of the run, its last steps, and what to try."""
        counts = ""
        failures, rollbacks = self._failures[learner.name], sum(self._rollbacks.values())
        if failures > 1 or rollbacks:
            counts = f", after {failures - 1} consecutive failures and {rollbacks} rollbacks"
        hint = "Try a lower lr, a warm-up, clip_grad, or on_nonfinite skip or rollback" + more
        if any(p.dtype == torch.float16 and p.requires_grad for p in learner.module.parameters()):
            hint += f". {HALF}"
        return "\n".join([f"{counts}; {self._saved()}. {hint}", *_last_steps(self.record.last, learner)])


def _last_steps(history: Iterable[Row], learner: Learner) -> list[str]:
    prefix = learner.column_prefix
    last = [row for row in history if row["kind"] == "step" and f"{prefix}loss" in row][-5:]
    norms = [row.get(f"{prefix}grad_norm", math.nan) for row in last]
    lines = [
        f"  {row['step']:>8}  {row[f'{prefix}loss']:>12.5g}  {norm:>13.5g}  {row.get(f'{prefix}lr', row['lr']):.3g}"
        for row, norm in zip(last, norms, strict=True)
    ]
    return ["", "      step          loss  gradient norm  learning rate", *lines] if lines else []
