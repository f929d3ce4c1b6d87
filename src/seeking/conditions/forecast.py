"""How often a schedule will hold."""

import copy

import numpy as np

from seeking.conditions.base import Condition, Signals


class Forecast:
    """On how many further batches of a run a condition will hold.

    Args:
        condition: a condition that the run goes on to update; it is copied, not changed.
    """

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self._left = np.zeros(0, dtype=np.int64)
        """By the number of batches to come. Once foreseen, a schedule does not change."""
        self._steps: int | None = None

    def left(self, step: int, steps: int, epoch_length: int | None) -> int | None:
        """The number of batches on which it will hold; None if it is no schedule, or still depends on the budget.

        Args:
            step: index of the batch on which it was updated last.
            steps: number of batches of the run.
            epoch_length: number of batches in an epoch, if known.
        """
        if not self.condition.is_schedule or self.condition.uses_budget:
            return None
        if steps != self._steps:
            ahead = copy.deepcopy(self.condition)
            holds = [
                ahead.update(0.0, Signals(loss=0.0, step=number, steps=steps, epoch_length=epoch_length))
                for number in range(step + 1, steps)
            ]
            self._steps, self._left = steps, np.cumsum([0, *reversed(holds)])
        return int(self._left[steps - step - 1])
