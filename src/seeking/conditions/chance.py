"""Conditions of chance, the paper's two ablations."""

import random

from seeking.conditions.base import Condition, State
from seeking.conditions.timing import Counting


class RandomTimes(Counting):
    """Ablation A: each batch with probability ``p``, whatever the losses ("random:0.17").

    The draw for a batch depends on the seed and the batch's number alone.

    Raises:
        ValueError: ``p`` is no probability.
    """

    def __init__(self, p: float, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}; a probability lies between 0 and 1")
        self.p = p
        self.seed = seed

    def __str__(self) -> str:
        return f"random:{self.p}"

    def at(self, batch: int, **signals: float) -> bool:
        return random.Random(f"times {self.seed} {batch}").random() < self.p


class MatchedCount(Counting):
    """Ablation B: as many batches an epoch as another condition would have chosen, at random ("matched(decrease:2)").

    How many an epoch's losses will make the inner condition hold is known only at its end. So each epoch takes the
    count of the epoch before it, at batches drawn uniformly without replacement; over a run the two totals differ
    by what the last epoch's count differs from the first's. The first epoch, before which nothing is known, takes
    each batch with the rate at which the inner condition has held so far. The inner condition sees this run's own
    losses.

    Args:
        inner: the condition that is counted.
        seed: of the draws.
        epoch_length: batches in an epoch; not needed where the signals bring it, as in the ``Trainer``.
    """

    def __init__(self, inner: Condition, seed: int = 0, epoch_length: int | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.seed = seed
        self.epoch_length = epoch_length
        self.count: int | None = None
        self.held = 0
        self._chosen: frozenset[int] | None = None

    def __str__(self) -> str:
        return f"matched({self.inner})"

    def holds(self, loss: float, **signals: float) -> bool:
        motivated = super().holds(loss, **signals)
        self.held += self.inner.update(loss, **signals)
        return motivated

    def at(self, batch: int, **signals: float) -> bool:
        length = self.epoch_length or int(signals.get("epoch_length", 0))
        if length < 1:
            raise ValueError("MatchedCount does not know how many batches an epoch has; give it epoch_length")
        epoch, place = divmod(batch, length)
        if place == 0 and epoch:
            self.count, self.held = self.held, 0
        if self.count is None:
            rate = self.held / batch if batch else 0
            return random.Random(f"matched {self.seed} {batch}").random() < rate
        if place == 0 or self._chosen is None:
            draw = random.Random(f"matched {self.seed} epoch {epoch}")
            self._chosen = frozenset(draw.sample(range(length), min(self.count, length)))
        return place in self._chosen

    def state_dict(self) -> State:
        return {**super().state_dict(), "count": self.count, "held": self.held, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.count, self.held = state["count"], state["held"]
        self.inner.load_state_dict(state["inner"])
        self._chosen = None
