"""Motivated training in which each model has a condition."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from seeking.conditions import Condition, Outcome
from seeking.training.run import Batch, Run


class Scheduled:
    """Each model steps on the batches on which its condition holds.

    With ``Always`` for the base and no teaching, this is the paper's algorithm. Both conditions see the loss of the
    base's latest step.

    Args:
        base_condition: decides on each batch whether the base takes a step; a schedule, such as ``every:4``.
        teach: whether the base learns from the logits of the motivated model on batches on which both step, as the
            objective weights them. The motivated model then steps first, and its logits cost nothing more.
        separate_at: share of the run after which each model has weights of its own; None keeps them shared.
    """

    def __init__(self, base_condition: Condition, *, teach: bool = False, separate_at: float | None = None) -> None:
        self.base_condition = base_condition
        self.teach = teach
        self.separate_at = separate_at
        self.loss = 0.0
        """Of the base's latest step; conditions take no loss that is not finite."""

    def __call__(self, batch: Batch, run: Run) -> None:
        """Train on one batch."""
        if self.separate_at is not None and run.progress.step >= round(self.separate_at * run.progress.steps):
            run.pair.separate()
        resting = Outcome(loss=self.loss, grad_norm=0.0, flops=run.batch_samples(batch) * run.cost.base_flops)
        base_steps = self.base_condition.update(self.loss, run.signals(resting))
        seen = self._step_base(batch, run) if base_steps and not self.teach else resting
        logits: list[Tensor] = []

        def loss_fn(model: nn.Module, micro_batch: Any) -> Tensor:
            output = run.objective.logits(model, micro_batch)
            logits.append(output.detach())
            return run.objective.loss_of_logits(output, micro_batch)

        if run.condition.update(seen.loss, run.signals(seen, pending=base_steps and self.teach)):
            with run.synced("motivated"):
                run.condition.feedback(run.step(run.motivated, batch, loss_fn if self.teach and base_steps else None))
        if base_steps and self.teach:
            self._step_base(batch, run, logits)

    def _step_base(self, batch: Batch, run: Run, logits: list[Tensor] | None = None) -> Outcome:
        taught = iter(logits or ())
        outcome = run.step(
            run.base,
            batch,
            lambda model, micro_batch: run.objective.loss(model, micro_batch, next(taught, None)),
        )
        self.loss = outcome.loss if math.isfinite(outcome.loss) else self.loss
        return outcome

    def state_dict(self) -> dict[str, Any]:
        """The loss and the state of the base's condition."""
        return {"loss": self.loss, "base_condition": self.base_condition.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there."""
        self.loss = float(state["loss"])
        self.base_condition.load_state_dict(state["base_condition"])
