"""A condition that learns when motivated steps pay: a bandit with two arms."""

import math
import random

from seeking.conditions.base import Outcome, Signals, needed, whole_number
from seeking.conditions.moving_average import accumulate
from seeking.conditions.registry import register
from seeking.conditions.schedule import Counting

EXPLORATION = 0.1
"""Share of the plays whose arm is drawn without regard to the weights."""

LEARNING_RATE = 0.2

MEMORY = 0.95
"""Decay of the weights and of the rewards' mean and variance: what paid early in a run may not pay late."""


@register("exp3")
class Exp3(Counting):
    """The bandit algorithm Exp3, with two arms: the base only, or both models ("exp3:0.25,10").

    A play lasts ``k`` batches. Its reward is the fall of the base's loss on held-out training data per FLOP, which is
    scaled to [0, 1] by the mean and the standard deviation of the rewards so far. The weights are discounted, since the
    best arm changes over a run. A play counts only if its arm was what happened: another condition or a budget may
    have decided otherwise.

    Source: Auer et al., "The Nonstochastic Multiarmed Bandit Problem", SIAM Journal on Computing 32 (2002).

    Args:
        limit: greatest share of motivated batches. A play of both models that would exceed it is not available.
        k: batches of a play.
        seed: seed of the draws.

    Raises:
        ValueError: ``limit`` is not in [0, 1], or ``k`` is not positive.
    """

    needs_held_out = True
    state_names = (
        *("seen", "motivated", "drawn", "advantage", "steps", "all_steps"),
        *("loss", "flops", "mean", "square", "weight"),
    )

    def __init__(self, limit: float = 1.0, k: int = 10, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= limit <= 1:
            raise ValueError(f"limit is {limit}; a share lies between 0 and 1")
        self.limit = limit
        self.k = whole_number("k", k, minimum=1)
        self.seed = seed
        self.motivated = False
        """The arm of this play."""
        self.drawn = False
        """Whether the arm was drawn; if not, only one was available."""
        self.advantage = 0.0
        """Logarithm of the weight of both models over that of the base only."""
        self.steps = 0
        """Motivated steps in this play."""
        self.all_steps = 0
        self.loss: float | None = None
        """The held-out loss at the start of this play."""
        self.flops = 0.0
        self.mean, self.square, self.weight = 0.0, 0.0, 0.0

    def __str__(self) -> str:
        return f"exp3:{self.limit},{self.k}"

    @property
    def probability(self) -> float:
        """The probability of the motivated arm, if both are available."""
        chosen = (1 + math.tanh(self.advantage / 2)) / 2
        return (1 - EXPLORATION) * chosen + EXPLORATION / 2

    def decide_at(self, batch: int, signals: Signals) -> bool:
        if batch % self.k == 0:
            loss = needed(self, "held_out_loss", signals.held_out_loss)
            flops = needed(self, "flops_spent", signals.flops_spent)
            if self.loss is not None and flops > self.flops and self.steps == self.k * self.motivated:
                self._learn((self.loss - loss) / (flops - self.flops))
            self.loss, self.flops, self.steps = (loss if math.isfinite(loss) else None), flops, 0
            self.drawn = self.all_steps + self.k <= self.limit * (batch + self.k)
            draw = random.Random(f"exp3 {self.seed} {batch}").random()
            self.motivated = self.drawn and draw < self.probability
        return self.motivated

    def _learn(self, reward: float) -> None:
        """Update the weights by the reward of a play."""
        if not math.isfinite(reward * reward):
            return
        self.mean, _ = accumulate(reward, self.mean, self.weight, MEMORY)
        self.square, self.weight = accumulate(reward * reward, self.square, self.weight, MEMORY)
        mean = self.mean / self.weight
        deviation = math.sqrt(max(0.0, self.square / self.weight - mean * mean))
        if self.drawn and deviation > 0:
            # Two standard deviations below the mean are 0, and two above it are 1.
            scaled = min(1.0, max(0.0, 0.5 + (reward - mean) / (4 * deviation)))
            probability = self.probability if self.motivated else 1 - self.probability
            change = LEARNING_RATE * scaled / probability
            self.advantage = MEMORY * self.advantage + (change if self.motivated else -change)

    def feedback(self, outcome: Outcome) -> None:
        self.steps += outcome.taken
        self.all_steps += 1
