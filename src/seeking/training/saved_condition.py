"""Saves the state of a condition together with its text, to check that they match."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seeking.conditions import Condition
from seeking.errors import SeekingError


@dataclass(frozen=True)
class SavedCondition:
    """The condition as a part of the run's state."""

    condition: Condition

    def state_dict(self) -> dict[str, Any]:
        """The condition as text, and its state."""
        return {"text": str(self.condition), "state": self.condition.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from this state.

        Raises:
            SeekingError: the state belongs to another condition.
            ValueError: the state is not valid.
        """
        if state["text"] != str(self.condition):
            raise SeekingError(f"the condition was {state['text']} and is {self.condition} now")
        _check(self.condition, state["state"])
        self.condition.load_state_dict(state["state"])


def _check(condition: Condition, state: Any) -> None:
    """Built-in conditions hold numbers, None, tensors by name and states of inner conditions; custom ones anything."""
    if not type(condition).__module__.startswith("seeking."):
        return
    if not isinstance(state, dict) or state.keys() != condition.state_dict().keys():
        raise ValueError("the state of another condition")
    for key, value in state.items():
        part = getattr(condition, key, None)
        if isinstance(part, Condition):
            _check(part, value)
        elif isinstance(value, dict) and all(isinstance(item, Tensor) for item in value.values()):
            continue
        elif value is not None and type(value) not in (int, float, bool):
            raise ValueError(f"{value!r} in the state of the condition")
