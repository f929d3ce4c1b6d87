"""Motivated training in which each model has a condition."""

import math
from collections.abc import Mapping
from typing import Any

from seeking.algorithms.teaching import Lesson
from seeking.choices import MODELS, Student
from seeking.conditions import Condition, OnePass, Outcome
from seeking.conditions.forecast import Forecast
from seeking.prefix import Prefix
from seeking.training.joint import discard, discarded_on_error, update_jointly, with_norm
from seeking.training.mutual import mutual_gradients
from seeking.training.one_pass import gradients_of_one_pass
from seeking.training.run import Batch, Run
from seeking.training.step import Loss


class Scheduled:
    """Each model steps on the batches on which its condition holds.

    With ``Always`` for the base and no more options, this is the paper's algorithm. Both conditions see the loss of the
    base's latest step.

    Args:
        base_condition: decides on each batch whether the base takes a step; a schedule, such as ``every:4``.
        student: which model learns from the other one's logits on batches on which both step, as the objective weights
            them: ``both`` from each other's, None neither. The teacher of one goes first, so that its logits cost
            nothing more; for both, each gradient is computed before either step.
        separate_at: share of the run after which each model has weights of its own: 1 keeps them shared to the end,
            None separates them at the base's first step.
        base_weight: where both step on a batch, they take one optimizer step, with this weight of the base's loss, in
            (0, 1); None lets each take its own.
        one_pass: whether the motivated model's condition decides before the base's step there, as one pass for both
            needs; it does so as well where two passes are taken after all.
    """

    def __init__(
        self,
        base_condition: Condition,
        *,
        student: Student | None = None,
        separate_at: float | None = 1.0,
        base_weight: float | None = None,
        one_pass: bool = False,
    ) -> None:
        self.base_condition = base_condition
        self.forecast = Forecast(base_condition)
        self.student = student
        self.separate_at = separate_at
        self.base_weight = base_weight
        self.one_pass = one_pass
        self.loss = 0.0
        """Of the base's latest step; conditions take no loss that is not finite."""
        self.norm = math.nan
        """Of the base's gradient in that step."""
        self._unseen = {"base": False, "motivated": False}
        """Whether the condition of each model has yet to see that step."""

    def __call__(self, batch: Batch, run: Run) -> None:
        """Train on one batch."""
        share = self.separate_at
        if share is not None and share < 1 and run.progress.step >= round(share * run.progress.steps):
            run.pair.separate()
        signals = run.signals(self._latest(batch, run, "base"), one_pass=self._saved_by_one_pass(batch, run))
        if not run.decide(self.base_condition, signals):
            if self._decide(batch, run):
                with run.synced("motivated"):
                    run.condition.feedback(run.step(run.motivated, batch))
            return
        if self.separate_at is None:
            run.pair.separate()
        if self.base_weight is None or run.pair.separated:
            self._step_one_by_one(batch, run)
        else:
            self._step_jointly(batch, run, self.base_weight)

    def _step_one_by_one(self, batch: Batch, run: Run) -> None:
        if self.student == "both":
            if self._decide(batch, run, pending=True):
                self._step_mutually(batch, run)
            else:
                self._seen(run.step(run.base, batch))
            return
        losses = self._losses(run)
        taught = self.student == "base"
        outcome = None if taught else self._seen(run.step(run.base, batch, losses["base"]))
        if self._decide(batch, run, outcome, pending=taught):
            with run.synced("motivated"):
                run.condition.feedback(run.step(run.motivated, batch, losses["motivated"]))
        if taught:
            self._seen(run.step(run.base, batch, losses["base"]))

    def _step_mutually(self, batch: Batch, run: Run) -> None:
        with run.synced("motivated"):
            smaller, larger = mutual_gradients(run, batch)
        with discarded_on_error(run, run.motivated):
            self._seen(run.update(run.base, smaller))
        with run.synced("motivated"):
            run.condition.feedback(run.update(run.motivated, larger))

    def _step_jointly(self, batch: Batch, run: Run, base_weight: float) -> None:
        """As one by one, but the gradient of the model that goes first waits for the other one's."""
        losses = self._losses(run)
        taught = self.student == "base"
        decided = taught or self.one_pass or self.student == "both"
        if decided and not self._decide(batch, run, pending=True, one_pass=run.prefix is not None):
            self._seen(run.step(run.base, batch, losses["base"]))
        elif run.prefix:
            self._step_in_one_pass(batch, run, base_weight, run.prefix, losses)
        elif self.student == "both":
            with run.synced("motivated"):
                smaller, larger = mutual_gradients(run, batch)
                outcome = update_jointly(run, self._seen(with_norm(run, smaller)), larger, base_weight)
            if not outcome.taken:
                discard(run, run.base)
            run.condition.feedback(outcome)
        elif taught:
            with run.synced("motivated"):
                larger = run.gradient(run.motivated, batch, losses["motivated"])
            with discarded_on_error(run, run.motivated):
                smaller = self._seen(with_norm(run, run.gradient(run.base, batch, losses["base"])))
            with run.synced("motivated"):
                outcome = update_jointly(run, smaller, larger, base_weight)
            if not outcome.taken:
                discard(run, run.base, run.motivated)
            run.condition.feedback(outcome)
        else:
            smaller = self._seen(with_norm(run, run.gradient(run.base, batch, losses["base"])))
            with discarded_on_error(run, run.base):
                if not decided and not self._decide(batch, run, smaller):
                    run.update(run.base, smaller)
                    return
                with run.synced("motivated"):
                    larger = run.gradient(run.motivated, batch, losses["motivated"])
                    outcome = update_jointly(run, smaller, larger, base_weight)
            if not outcome.taken:
                discard(run, run.base)
            run.condition.feedback(outcome)

    def _step_in_one_pass(
        self, batch: Batch, run: Run, base_weight: float, prefix: Prefix, losses: Mapping[str, Loss | None]
    ) -> None:
        with discarded_on_error(run, run.base), run.synced("motivated"):
            smaller, larger = gradients_of_one_pass(run, prefix, batch, losses, base_weight)
            outcome = update_jointly(run, self._seen(smaller), larger, None)
        if not outcome.taken:
            discard(run, run.base)
        run.condition.feedback(outcome)

    def _losses(self, run: Run) -> dict[str, Loss | None]:
        """The loss of each model on a batch on which both may step."""
        if self.student in (None, "both"):
            return {"base": None, "motivated": None}
        lesson = Lesson(run.objective)
        return {name: lesson.take if name == self.student else lesson.give for name in MODELS}

    def _decide(
        self, batch: Batch, run: Run, outcome: Outcome | None = None, *, pending: bool = False, one_pass: bool = False
    ) -> bool:
        """Ask the condition, after the base's step on this batch; without one, after its latest step."""
        outcome = outcome or self._latest(batch, run, "motivated")
        self._unseen["motivated"] = False
        left = self._base_steps_left(run, run.progress.step)
        saved = self._saved_by_one_pass(batch, run, now=one_pass, base_steps_left=left)
        signals = run.signals(outcome, pending=pending, one_pass=saved, base_steps_left=left)
        return run.decide(run.condition, signals)

    def _base_steps_left(self, run: Run, step: int) -> int | None:
        """The number of batches after this one on which the base will step, if a budget needs it and it is known."""
        return self.forecast.left(step, run.progress.steps, run.progress.epoch_length) if run.budget else None

    def _saved_by_one_pass(
        self, batch: Batch, run: Run, *, now: bool = False, base_steps_left: int | None = None
    ) -> OnePass | None:
        if run.prefix is None or self.base_weight is None or self.separate_at is None or run.pair.separated:
            return None
        until = round(self.separate_at * run.progress.steps)
        after = self._base_steps_left(run, until - 1) if base_steps_left is not None else None
        return OnePass(
            flops=run.batch_samples(batch) * run.cost.prefix_flops,
            until=until,
            now=now,
            base_steps=None if base_steps_left is None or after is None else base_steps_left - after,
        )

    def _latest(self, batch: Batch, run: Run, name: str) -> Outcome:
        """The base's latest step, as taken if the condition of this model has not seen it; FLOPs are of this batch."""
        flops = run.batch_samples(batch) * run.cost.base_flops
        taken, self._unseen[name] = self._unseen[name], False
        return Outcome(loss=self.loss, grad_norm=self.norm, flops=flops, taken=taken)

    def _seen(self, outcome: Outcome) -> Outcome:
        if math.isfinite(outcome.loss):
            self.loss, self.norm = outcome.loss, outcome.grad_norm
            self._unseen = dict.fromkeys(self._unseen, True)
        return outcome

    def state_dict(self) -> dict[str, Any]:
        """The latest step of the base, who has seen it, and the state of the base's condition."""
        latest = {"loss": self.loss, "norm": self.norm if math.isfinite(self.norm) else None, "unseen": self._unseen}
        return {**latest, "base_condition": self.base_condition.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there."""
        self.loss = float(state["loss"])
        self.norm = math.nan if state["norm"] is None else float(state["norm"])
        self._unseen = {name: bool(state["unseen"][name]) for name in self._unseen}
        self.base_condition.load_state_dict(state["base_condition"])
