"""Conditions that spend a budget of FLOPs."""

from typing import NamedTuple

from seeking.conditions.base import Condition, OnePass, Signals, Wrapper
from seeking.conditions.registry import register
from seeking.conditions.schedule import batches_of
from seeking.errors import SeekingError

ROUNDING = 1e-9
"""Sums of FLOPs that differ by less, relatively, are the same."""


class WithinBudget(Wrapper):
    """Another condition, kept within the budget of the run (``Signals.flops_planned``).

    It does not hold if the budget would then no longer pay for the base's steps on the remaining batches. It holds if
    the budget would otherwise not be spent by the end. How often the base will step is known if it does so by a
    schedule; else it may step on every batch, and is expected to step as often as so far.
    """

    state_names = ("batches", "base_steps")

    def __init__(self, inner: Condition) -> None:
        super().__init__(inner)
        self.batches = self.base_steps = 0

    @property
    def uses_budget(self) -> bool:
        return True

    def __str__(self) -> str:
        return f"within_budget({self.inner})"

    def decide(self, signals: Signals) -> bool:
        decision = self.inner.update(signals.loss, signals)
        plan = _plan(signals)
        self.batches += 1
        self.base_steps += signals.base_stepped
        remaining, batches = plan.planned * (1 + ROUNDING) - plan.spent, plan.steps - plan.step - 1
        most: float = batches
        # Within a cycle of rests, a step less than so far: too low a share is made up for later, too high a one is not.
        share = max(0, self.base_steps - (self.base_steps < self.batches)) / self.batches
        expected, in_one_pass = share * batches, share * max(0, plan.until - plan.step - 1)
        if signals.base_steps_left is not None:
            most = expected = signals.base_steps_left
        if signals.one_pass and signals.one_pass.base_steps is not None:
            in_one_pass = signals.one_pass.base_steps
        if remaining < plan.motivated_now + most * plan.base:
            return False
        ahead = expected * plan.base + batches * plan.motivated - in_one_pass * plan.saved
        return decision or remaining >= plan.motivated_now + ahead


@register("affordable")
class Affordable(Condition):
    """From the batch on from which the budget pays for a motivated step on every further batch.

    ``affordable`` plans for the steps of the base by its schedule, or on every batch if it has none.
    ``affordable:0.25,0.77`` plans for a base that steps on this share of the batches (0.25) up to this share of the run
    (0.77), and on every batch from there. In a run without a budget it holds on every batch.

    Args:
        base_share: share of batches on which the base steps until ``finish``, in [0, 1].
        finish: share of the run, in [0, 1].

    Raises:
        ValueError: a share is not in [0, 1], or one is given and the other is not.
    """

    is_schedule = True
    state_names = ("reached",)

    def __init__(self, base_share: float | None = None, finish: float | None = None) -> None:
        if (base_share is None) != (finish is None):
            raise ValueError("takes 0 or 2 numbers (base_share, finish), not 1")
        for name, share in (("base_share", base_share), ("finish", finish)):
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; a share lies between 0 and 1")
        self.base_share = base_share
        self.finish = finish
        self.reached = False

    @property
    def uses_budget(self) -> bool:
        return not self.reached  # From then on it holds, whatever is spent.

    def __str__(self) -> str:
        return "affordable" if self.finish is None else f"affordable:{self.base_share},{self.finish}"

    def decide(self, signals: Signals) -> bool:
        if not self.reached and signals.flops_planned is None:
            self.reached = True
        elif not self.reached:
            plan = _plan(signals)
            base_steps, in_one_pass = self._base_steps(plan, signals)
            flops = base_steps * plan.base + (plan.steps - plan.step) * plan.motivated - in_one_pass * plan.saved
            self.reached = plan.spent + flops <= plan.planned * (1 + ROUNDING)
        return self.reached

    def _base_steps(self, plan: "_Plan", signals: Signals) -> tuple[float, float]:
        """Further steps of the base, and how many of them one pass can take."""
        step, share = plan.step, self.base_share
        if share is None or self.finish is None:
            if signals.base_steps_left is not None:
                return signals.base_steps_left, (signals.one_pass and signals.one_pass.base_steps) or 0
            share, finish = 1.0, plan.steps
        else:
            finish = max(step, batches_of(self.finish, signals) if self.finish < 1 else plan.steps)
        in_one_pass = share * max(0, min(finish, plan.until) - step) + max(0, plan.until - finish)
        return share * (finish - step) + plan.steps - finish, in_one_pass


class _Plan(NamedTuple):
    """The signals that are needed, with FLOPs on a batch of the mean size.

    Attributes:
        planned: FLOPs of the run.
        spent: FLOPs so far.
        step: index of this batch.
        steps: number of batches of the run.
        base: FLOPs of a step of the base.
        motivated: FLOPs of a step of the motivated model, in a pass of its own.
        motivated_now: FLOPs of its step on this batch.
        saved: FLOPs that one pass saves where both step on a further batch before ``until``.
        until: index of the batch from which on it saves nothing.
    """

    planned: float
    spent: float
    step: int
    steps: int
    base: float
    motivated: float
    motivated_now: float
    saved: float
    until: int


def _plan(signals: Signals) -> _Plan:
    planned, spent, step, steps = signals.flops_planned, signals.flops_spent, signals.step, signals.steps
    base, motivated, share = signals.base_flops, signals.motivated_flops, signals.batch_share or 1.0
    if planned is None or spent is None or step is None or steps is None or base is None or motivated is None:
        raise SeekingError("a condition that spends a budget needs the run to have one; set budget")
    one_pass = signals.one_pass or OnePass(flops=0.0, until=0)
    whole = motivated + one_pass.flops * one_pass.now
    return _Plan(
        planned=planned,
        spent=spent,
        step=step,
        steps=steps,
        base=base / share,
        motivated=whole / share,
        motivated_now=motivated / share,
        saved=one_pass.flops / share,
        until=one_pass.until,
    )
