"""A condition's state, saved with the condition that it belongs to."""

from collections.abc import Mapping
from typing import Any

from seeking.conditions import Condition
from seeking.errors import SeekingError


class SavedCondition:
    """The part of a run's state that is its condition's."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition

    def state_dict(self) -> dict[str, Any]:
        """The condition as text, and its state."""
        return {"text": str(self._condition), "state": self._condition.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from this state.

        Raises:
            SeekingError: it is another condition's.
            ValueError: it is not one of this condition.
        """
        if state["text"] != str(self._condition):
            raise SeekingError(f"the condition was {state['text']} and is {self._condition} now")
        _check(self._condition, state["state"])
        self._condition.load_state_dict(state["state"])


def _check(condition: Condition, state: Any) -> None:
    """The state of a condition of ours holds its parts' states, numbers and None; a custom one's may be anything."""
    if not type(condition).__module__.startswith("seeking."):
        return
    if not isinstance(state, dict) or state.keys() != condition.state_dict().keys():
        raise ValueError("the state of another condition")
    for key, value in state.items():
        part = getattr(condition, key, None)
        if isinstance(part, Condition):
            _check(part, value)
        elif value is not None and type(value) not in (int, float, bool):
            raise ValueError(f"{value!r} in the state of the condition")
