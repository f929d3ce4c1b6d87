"""When to be motivated."""

from seeking.conditions.base import Condition
from seeking.conditions.chance import MatchedCount, RandomTimes
from seeking.conditions.parse import parse
from seeking.conditions.timing import After, Always, Every, Never
from seeking.conditions.trend import ConsecutiveDecrease

__all__ = [
    "After",
    "Always",
    "Condition",
    "ConsecutiveDecrease",
    "Every",
    "MatchedCount",
    "Never",
    "RandomTimes",
    "parse",
]
