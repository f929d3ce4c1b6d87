"""The run that an algorithm works with: the models, the condition, and how to take a step."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from seeking.conditions import Condition, OnePass, Outcome, Signals
from seeking.distributed.mean_loss import of_first_process
from seeking.distributed.sharding import is_sharded
from seeking.errors import SeekingError
from seeking.pair import Pair
from seeking.prefix import Prefix
from seeking.training.budget import Budget
from seeking.training.cost import Cost
from seeking.training.held_out import HeldOut
from seeking.training.joining import Joining
from seeking.training.learner import Learner
from seeking.training.micro_batches import MicroBatches
from seeking.training.moving_average import Average
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
        held_out: training data that no step trains on, if conditions may measure the loss on them.
        prefix: what both models compute in one pass in a joint step, if anything.
        joining: what happens when the motivated model takes its first step, if anything.
        averages: moving averages of the models' weights by name, if any.
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
    held_out: HeldOut | None = None
    prefix: Prefix | None = None
    joining: Joining | None = None
    averages: Mapping[str, Average] = field(default_factory=dict)
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
        return self.update(learner, self.gradient(learner, batch, loss_fn, also=also, other_flops=other_flops))

    def gradient(
        self,
        learner: Learner,
        batch: Batch,
        loss_fn: Loss | None = None,
        *,
        also: Sequence[Learner] = (),
        other_flops: float = 0.0,
    ) -> Outcome:
        """Compute the gradient of a model on a batch; an update must follow. The arguments are those of ``step``.

        Returns:
            What is known before the update: all but the norm of the gradient, NaN, and whether the step will be taken.
        """
        if self.joining and learner.name == "motivated":
            self.joining.begin(self.base, learner)
        batch = self.micro_batches(batch)
        loss = self.stepper.backward(learner, batch, loss_fn or self.objective.loss, also)
        for trained in (learner, *also):
            self.cost.add_step(trained.name, batch.samples)
        self.cost.other_flops += batch.samples * other_flops
        flops = batch.samples * (sum(self.cost.of_sample(trained.name) for trained in (learner, *also)) + other_flops)
        gradients = learner.gradients() if self.condition.needs_gradients else None
        shared = functools.partial(self.shared_part, gradients) if gradients and learner.name == "motivated" else None
        return Outcome(
            loss=loss, grad_norm=math.nan, flops=flops, taken=True, gradients=gradients, shared_gradients=shared
        )

    def update(self, learner: Learner, outcome: Outcome, *, finite: bool = True) -> Outcome:
        """Take the optimizer step after ``gradient``, unless the loss or the gradient is NaN or infinite.

        Args:
            learner: the model with its optimizer.
            outcome: what is known of the gradient.
            finite: whether all that belongs to the same step is.
        """
        if self.progress.first_step is None:
            self.progress.first_step = self.progress.step
        for each in self.learners.values():
            each.rate_factor = self.progress.late_warmup(each.warmup)
        joining = self.joining if learner.name == "motivated" else None
        sound = finite and math.isfinite(outcome.loss)
        with joining.rewarming() if joining else contextlib.nullcontext():
            norm, taken = self.stepper.update(learner, sound)
        self.note(learner, outcome.loss, norm)
        if taken:
            self.guard.succeeded(learner)
        elif not (sound and self.stepper.skips_overflows):
            self.guard.failed(
                learner,
                loss=outcome.loss,
                norm=norm if finite else math.nan,
                step=self.progress.step,
                epoch=self.progress.epoch,
                rate=learner.learning_rate,
            )
        return dataclasses.replace(outcome, grad_norm=norm, taken=taken)

    def note(self, learner: Learner, loss: float, norm: float | None) -> None:
        """Put the metrics of a step into the row of this batch; a norm that is not known is left out."""
        prefix, rate = learner.column_prefix, next(iter(self.learners.values())).learning_rate
        self.row |= {f"{prefix}loss": loss, "lr": rate}
        if learner.learning_rate != rate:
            self.row[f"{prefix}lr"] = learner.learning_rate
        if norm is not None:
            self.row[f"{prefix}grad_norm"] = norm

    def signals(
        self,
        base: Outcome,
        *,
        pending: bool = False,
        one_pass: OnePass | None = None,
        base_steps_left: int | None = None,
    ) -> Signals:
        """The signals for the condition after the base's step on this batch.

        Args:
            base: the outcome of the base's step.
            pending: whether this step is still to come; its FLOPs count as spent all the same.
            one_pass: what one pass for both models saves, if it does so from here on.
            base_steps_left: number of further batches on which the base will step, if known.
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
            base_stepped=base.taken,
            base_steps_left=base_steps_left,
            grad_norm=base.grad_norm if base.taken and not math.isnan(base.grad_norm) else None,
            held_out_loss=functools.cache(self._held_out_loss) if self.held_out else None,
            base_flops=base.flops,
            motivated_flops=samples * self.cost.motivated_flops
            - (one_pass.flops if one_pass and one_pass.now else 0.0),
            one_pass=one_pass,
            gradients=base.gradients,
        )

    def decide(self, condition: Condition, signals: Signals) -> bool:
        """The decision of a condition on this batch: that of the first process, in all of them."""
        return of_first_process(condition.update(signals.loss, signals), self.stepper.accelerator.device)

    def _held_out_loss(self) -> float:
        assert self.held_out
        self.cost.held_out_samples += self.held_out.samples
        loss = self.held_out.loss(self.base, self.objective)
        if self.row:  # An empty one tells that no step was taken yet.
            self.row["held_out_loss"] = loss
        return loss

    def shared_part(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The base's part of gradients of the motivated model, by parameter of the base.

        Raises:
            SeekingError: they are sharded.
        """
        if any(map(is_sharded, gradients.values())):
            raise SeekingError(
                "gradients of sharded models cannot be compared; turn shard off, or change the condition"
            )
        return self.pair.map.shared.extract(gradients)

    def synced(self, name: str) -> contextlib.AbstractContextManager[object]:
        """Inside, the model is up to date: the motivated model has the latest weights of the base, until they part."""
        shares = self.pair_or_none and not self.pair.separated and name == "motivated"
        return self.pair.motivated() if shares else contextlib.nullcontext()

    @property
    def saved_parts(self) -> dict[str, str]:
        """The part of the run's state that holds the weights that are saved, by model."""
        return {name: average_part(name) if name in self.averages else name for name in self.learners}

    def average(self) -> None:
        """Take the weights after a batch into the averages, if there are any."""
        for name, average in self.averages.items():
            with self.synced(name):
                average.update()

    @contextlib.contextmanager
    def evaluated(self, name: str) -> Iterator[nn.Module]:
        """Inside, the model is up to date and has the weights that are evaluated: the averages, if there are any."""
        with self.synced(name):
            if name in self.averages:
                with self.averages[name].applied() as model:
                    yield model
            else:
                yield self.learners[name].module

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The autocast context of training, for other models, such as a teacher."""
        context: contextlib.AbstractContextManager[None] = self.stepper.accelerator.autocast()
        return context

    def batch_samples(self, batch: Batch) -> int:
        """Number of samples in a batch, over all processes."""
        return MicroBatches.of(batch, self.stepper.accelerator.num_processes).samples

    def micro_batches(self, batch: Batch) -> MicroBatches:
        """The micro-batches of a step, each with its weight; all processes must call this."""
        accelerator = self.stepper.accelerator
        micro_batches = MicroBatches.of(batch, accelerator.num_processes)
        count = getattr(self.objective, "count", None)
        if count:
            micro_batches.weigh(count, accelerator.device)
        return micro_batches


def average_part(name: str) -> str:
    """The part of the run's state that holds the average of this model."""
    return f"{name}_average"


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
    if run.pair_or_none and "pair" in state["parts"]:
        run.pair_or_none.load_state_dict(state["parts"]["pair"])
    for name, learner in run.learners.items():
        learner.roll_back(state["parts"][name])
    for name, average in run.averages.items():
        average.load_state_dict(state["parts"][average_part(name)])
    if run.joining:
        run.joining.load_state_dict(state["parts"]["joining"])
    if scaler is not None:
        scaler.load_state_dict(state["parts"]["scaler"])
    run.guard.record.note(f"rolled back to the weights of step {state['step']}")
