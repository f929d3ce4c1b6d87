"""Random conditions: the two ablations of the paper."""

import random

from seeking.conditions.base import Condition, Signals, State, Wrapper
from seeking.conditions.registry import register
from seeking.conditions.schedule import Counting, Schedule


@register("random")
class RandomTimes(Schedule):
    """Ablation A: each batch with probability ``p``, regardless of the loss ("random:0.17").

    The draw for a batch depends on the seed and the batch's number alone.

    Source: arXiv 2602.21064, ablation A.

    Raises:
        ValueError: ``p`` is not a probability.
    """

    def __init__(self, p: float, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}; a probability lies between 0 and 1")
        self.p = p
        self.seed = seed

    def __str__(self) -> str:
        return f"random:{self.p}"

    def decide_at(self, batch: int, signals: Signals) -> bool:
        return random.Random(f"times {self.seed} {batch}").random() < self.p


@register("matched", wraps=True)
class MatchedCount(Wrapper, Counting):
    """Ablation B: random batches, as many in an epoch as another condition would choose ("matched(decrease:2)").

    How often the inner condition holds in an epoch is known only at its end. So each epoch takes the count of the
    epoch before it, at batches drawn uniformly without replacement. The first epoch takes each batch with the rate at
    which the inner condition has held so far. Over a run, the two totals differ by this count in the first epoch less
    the inner condition's in the last one. The inner condition sees this run's own losses.

    Source: arXiv 2602.21064, ablation B.

    Args:
        inner: the condition that is counted.
        seed: seed of the random numbers.
        epoch_length: number of batches in an epoch; not needed if the signals include it, as in the ``Trainer``.
    """

    state_names = ("seen", "count", "held")

    def __init__(self, inner: Condition, seed: int = 0, epoch_length: int | None = None) -> None:
        Wrapper.__init__(self, inner)
        Counting.__init__(self)
        self.seed = seed
        self.epoch_length = epoch_length
        self.count: int | None = None
        self.held = 0
        """How often the inner condition has held in this epoch."""
        self._chosen: frozenset[int] | None = None

    def __str__(self) -> str:
        return f"matched({self.inner})"

    @property
    def needs_epoch_length(self) -> bool:
        return self.epoch_length is None or super().needs_epoch_length

    def decide(self, signals: Signals) -> bool:
        decision = super().decide(signals)
        self.held += self.inner.update(signals.loss, signals)
        return decision

    def decide_at(self, batch: int, signals: Signals) -> bool:
        length = self.epoch_length or int(signals.epoch_length or 0)
        if length < 1:
            raise ValueError("MatchedCount does not know the number of batches in an epoch; give it epoch_length")
        epoch, batch_in_epoch = divmod(batch, length)
        if batch_in_epoch == 0 and epoch:
            self.count, self.held = self.held, 0
        if self.count is None:
            rate = self.held / batch if batch else 0
            return random.Random(f"matched {self.seed} {batch}").random() < rate
        if batch_in_epoch == 0 or self._chosen is None:
            draw = random.Random(f"matched {self.seed} epoch {epoch}")
            self._chosen = frozenset(draw.sample(range(length), min(self.count, length)))
        return batch_in_epoch in self._chosen

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self._chosen = None
