"""Conditions that look at the count of batches alone."""

from seeking.conditions.base import Condition, State, batches


class Counting(Condition):
    """Knows how many batches it has seen before this one."""

    def __init__(self) -> None:
        self.seen = 0

    def holds(self, loss: float, **signals: float) -> bool:
        held = self.at(self.seen, **signals)
        self.seen += 1
        return held

    def at(self, batch: int, **signals: float) -> bool:
        """Whether to be motivated at batch number ``batch``, from 0."""
        raise NotImplementedError

    def state_dict(self) -> State:
        return {"seen": self.seen}

    def load_state_dict(self, state: State) -> None:
        self.seen = state["seen"]


class Always(Condition):
    """Every batch ("always")."""

    def __str__(self) -> str:
        return "always"

    def holds(self, loss: float, **signals: float) -> bool:
        return True


class Never(Condition):
    """No batch, which is ordinary training of the base ("never")."""

    def __str__(self) -> str:
        return "never"

    def holds(self, loss: float, **signals: float) -> bool:
        return False


class Every(Counting):
    """Batches number k, 2k, 3k and so on ("every:6").

    Raises:
        ValueError: ``k`` is not positive.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = batches("k", k, least=1)

    def __str__(self) -> str:
        return f"every:{self.k}"

    def at(self, batch: int, **signals: float) -> bool:
        return (batch + 1) % self.k == 0


class After(Counting):
    """Every batch once ``step`` batches have gone by ("after:500").

    Raises:
        ValueError: ``step`` is negative.
    """

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = batches("step", step, least=0)

    def __str__(self) -> str:
        return f"after:{self.step}"

    def at(self, batch: int, **signals: float) -> bool:
        return batch >= self.step
