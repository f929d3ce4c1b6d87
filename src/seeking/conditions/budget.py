"""Conditions that spend a budget of FLOPs."""

from seeking.conditions.base import Condition, Signals, State, Wrapper
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

    def __init__(self, inner: Condition) -> None:
        super().__init__(inner)
        self.batches = self.base_steps = 0

    def __str__(self) -> str:
        return f"within_budget({self.inner})"

    def decide(self, signals: Signals) -> bool:
        decision = self.inner.update(signals.loss, signals)
        planned, spent, step, steps, base, motivated = _known(signals)
        self.batches += 1
        self.base_steps += signals.base_stepped
        remaining, batches = planned * (1 + ROUNDING) - spent, steps - step - 1
        most: float = batches
        # Within a cycle of rests, a step less than so far: too low a share is made up for later, too high a one is not.
        expected = batches * max(0, self.base_steps - (self.base_steps < self.batches)) / self.batches
        if signals.base_steps_left is not None:
            most = expected = signals.base_steps_left
        if remaining < motivated + most * base:
            return False
        base_ahead, motivated_ahead = _ahead(signals, base, motivated)
        return decision or remaining >= motivated + expected * base_ahead + batches * motivated_ahead

    def state_dict(self) -> State:
        return {**super().state_dict(), "batches": self.batches, "base_steps": self.base_steps}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        # Earlier versions have none, and took it that the base would step on every batch.
        self.batches, self.base_steps = state.get("batches", 0), state.get("base_steps", 0)


@register("affordable")
class Affordable(Condition):
    """From the batch on from which the budget pays for a motivated step on every further batch.

    ``affordable:0.25,0.77`` plans for a base that steps on this share of the batches (0.25) up to this share of the run
    (0.77), and on every batch from there.

    Args:
        base_share: share of batches on which the base steps until ``finish``, in [0, 1].
        finish: share of the run, in [0, 1].

    Raises:
        ValueError: a share is not in [0, 1].
    """

    def __init__(self, base_share: float, finish: float) -> None:
        for name, share in (("base_share", base_share), ("finish", finish)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; a share lies between 0 and 1")
        self.base_share = base_share
        self.finish = finish
        self.reached = False

    @property
    def needs_budget(self) -> bool:
        return not self.reached  # From then on it holds, whatever is spent.

    @property
    def is_schedule(self) -> bool:
        return True

    def __str__(self) -> str:
        return f"affordable:{self.base_share},{self.finish}"

    def decide(self, signals: Signals) -> bool:
        if not self.reached:
            planned, spent, step, steps, *flops = _known(signals)
            base, motivated = _ahead(signals, *flops)
            finish = max(step, batches_of(self.finish, signals) if self.finish < 1 else steps)
            base_steps = self.base_share * (finish - step) + steps - finish
            self.reached = spent + base_steps * base + (steps - step) * motivated <= planned * (1 + ROUNDING)
        return self.reached

    def state_dict(self) -> State:
        return {"reached": self.reached}

    def load_state_dict(self, state: State) -> None:
        self.reached = state["reached"]


def _known(signals: Signals) -> tuple[float, float, int, int, float, float]:
    """The signals that are needed, with the FLOPs of steps on a batch of the mean size."""
    planned, spent, step, steps = signals.flops_planned, signals.flops_spent, signals.step, signals.steps
    base, motivated, share = signals.base_flops, signals.motivated_flops, signals.batch_share or 1.0
    if planned is None or spent is None or step is None or steps is None or base is None or motivated is None:
        raise SeekingError("a condition that spends a budget needs the run to have one; set budget")
    return planned, spent, step, steps, base / share, motivated / share


def _ahead(signals: Signals, base: float, motivated: float) -> tuple[float, float]:
    """FLOPs of steps of both models on a further batch of the mean size; by default, those of steps on this one."""
    share = signals.batch_share or 1.0
    base_ahead, motivated_ahead = signals.base_flops_ahead, signals.motivated_flops_ahead
    return (
        base if base_ahead is None else base_ahead / share,
        motivated if motivated_ahead is None else motivated_ahead / share,
    )
