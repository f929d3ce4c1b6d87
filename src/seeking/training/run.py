"""The run that an algorithm works with: the models, the condition, and how to take a step."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seeking.conditions import Condition, Outcome, Signals
from seeking.errors import SeekingError
from seeking.pair import Pair
from seeking.training.budget import Budget
from seeking.training.cost import Cost
from seeking.training.learner import Learner
from seeking.training.micro_batches import MicroBatches
from seeking.training.nonfinite import NonFiniteGuard
from seeking.training.objective import Objective
from seeking.training.progress import Progress
from seeking.training.record import Row
from seeking.training.step import Loss, Stepper

Batch = Sequence[Any]
"""The micro-batches of one step; more than one with gradient accumulation (``accumulate``)."""


@dataclass(kw_only=True)
class Run:
    """The run that an algorithm works with.

    Attributes:
        learners: the models that are trained, by name.
        condition: the motivation condition.
        objective: loss and metrics.
        progress: epochs and steps so far.
        cost: FLOPs so far.
        budget: the FLOPs of the run, if they are limited.
    """

    learners: dict[str, Learner]
    pair_or_none: Pair | None
    condition: Condition
    objective: Objective
    progress: Progress
    cost: Cost
    stepper: Stepper
    guard: NonFiniteGuard
    budget: Budget | None = None
    row: Row = field(default_factory=dict)
    """Metrics of the steps on this batch."""

    @property
    def pair(self) -> Pair:
        """The two models and their map.

        Raises:
            SeekingError: the run trains one model alone.
        """
        if self.pair_or_none is None:
            raise SeekingError("this algorithm trains a pair, but the run has one model; give the Trainer both models")
        return self.pair_or_none

    @property
    def base(self) -> Learner:
        """The base; missing if the motivated model is trained alone."""
        return self.learners["base"]

    @property
    def motivated(self) -> Learner:
        """The motivated model; missing if the base is trained alone."""
        return self.learners["motivated"]

    def step(
        self,
        learner: Learner,
        batch: Batch,
        loss_fn: Loss | None = None,
        *,
        also: Sequence[Learner] = (),
        other_flops: float = 0.0,
    ) -> Outcome:
        """Take one optimizer step of a model. The step is skipped if its loss or gradient is NaN or infinite.

        For the motivated model, call this inside ``run.pair.motivated()``.

        Args:
            learner: the model with its optimizer.
            batch: the batch of the algorithm.
            loss_fn: maps a model and a micro-batch to the loss; the objective's loss by default.
            also: other models that the loss runs forward and backward; counted in the cost.
            other_flops: other FLOPs of the loss, per sample; counted in the cost.
        """
        loss_fn = loss_fn or self.objective.loss
        batch = self._micro_batches(batch)
        loss, norm, taken, gradients = self.stepper(learner, batch, loss_fn, self.condition.needs_gradients)
        samples = batch.samples
        for trained in (learner, *also):
            self.cost.add_step(trained.name, samples)
        self.cost.other_flops += samples * other_flops
        prefix, rate = learner.column_prefix, next(iter(self.learners.values())).learning_rate
        self.row |= {f"{prefix}loss": loss, f"{prefix}grad_norm": norm, "lr": rate}
        if taken:
            self.guard.succeeded(learner)
        else:
            progress = self.progress
            self.guard.failed(learner, step=progress.step, epoch=progress.epoch, rate=rate, loss=loss, norm=norm)
        flops = samples * (sum(self.cost.of_sample(trained.name) for trained in (learner, *also)) + other_flops)
        return Outcome(loss=loss, grad_norm=norm, flops=flops, taken=taken, gradients=gradients)

    def signals(self, base: Outcome, *, pending: bool = False) -> Signals:
        """The signals for the condition after the base's step on this batch.

        Args:
            base: the outcome of the base's step.
            pending: whether this step is still to come; its FLOPs count as spent all the same.
        """
        samples = base.flops / self.cost.base_flops if self.cost.base_flops else 0.0
        mean = (self.cost.run_samples + samples) / (self.cost.batches + 1)
        return Signals(
            loss=base.loss,
            step=self.progress.step,
            steps=self.progress.steps,
            epoch_length=self.progress.epoch_length,
            learning_rate=self.base.learning_rate,
            flops_spent=self.cost.total + (base.flops if pending else 0.0),
            flops_planned=self.budget.for_steps(self.progress, self.cost, mean) if self.budget else None,
            batch_share=samples / mean if mean else None,
            base_flops=base.flops,
            motivated_flops=samples * self.cost.motivated_flops,
            gradients=base.gradients,
        )

    def synced(self, name: str) -> contextlib.AbstractContextManager[object]:
        """Inside, the model is up to date: the motivated model has the latest weights of the base, until they part."""
        shares = self.pair_or_none and not self.pair.separated and name == "motivated"
        return self.pair.motivated() if shares else contextlib.nullcontext()

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The autocast context of training, for other models, such as a teacher."""
        context: contextlib.AbstractContextManager[None] = self.stepper.accelerator.autocast()
        return context

    def batch_samples(self, batch: Batch) -> int:
        """Number of samples in a batch, over all processes."""
        return self._micro_batches(batch).samples

    def _micro_batches(self, batch: Batch) -> MicroBatches:
        return MicroBatches.of(batch, self.stepper.accelerator.num_processes)


Algorithm = Callable[[Batch, Run], None]
"""Trains the models on one batch. If it has ``state_dict`` and ``load_state_dict``, its state is saved with the run."""


def roll_back(run: Run, state: Mapping[str, Any], scaler: Any) -> None:
    """Restore weights and optimizer states from a checkpoint after a failed step; the schedule is not set back.

    Args:
        run: the run whose step failed.
        state: state of the newest checkpoint.
        scaler: gradient scaler, under fp16.

    Raises:
        DivergedError: too many rollbacks.
    """
    run.guard.rolled_back(state["step"])
    for name, learner in run.learners.items():
        learner.roll_back(state["parts"][name])
    if scaler is not None:
        scaler.load_state_dict(state["parts"]["scaler"])
    run.guard.record.note(f"rolled back to the weights of step {state['step']}")
