"""Motivation conditions: signals in, a decision out. A new condition is one file here that registers it."""

from seeking.conditions.base import Condition, Outcome, Signals
from seeking.conditions.delay import Next
from seeking.conditions.grammar import parse
from seeking.conditions.loss import ConsecutiveDecrease
from seeking.conditions.registry import register
from seeking.conditions.schedule import After, Always, Every, Never
from seeking.conditions.stochastic import MatchedCount, RandomTimes

__all__ = [
    "After",
    "Always",
    "Condition",
    "ConsecutiveDecrease",
    "Every",
    "MatchedCount",
    "Never",
    "Next",
    "Outcome",
    "RandomTimes",
    "Signals",
    "parse",
    "register",
]
