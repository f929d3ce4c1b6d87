"""Motivation conditions: signals in, a decision out. A new condition is one file here that registers it."""

from seeking.conditions.base import Condition, Outcome, Signals
from seeking.conditions.budget import Affordable, WithinBudget
from seeking.conditions.delay import Next
from seeking.conditions.grammar import parse
from seeking.conditions.loss import ConsecutiveDecrease
from seeking.conditions.registry import register
from seeking.conditions.schedule import After, Always, Before, Every, Never
from seeking.conditions.stochastic import MatchedCount, RandomTimes

__all__ = [
    "Affordable",
    "After",
    "Always",
    "Before",
    "Condition",
    "ConsecutiveDecrease",
    "Every",
    "MatchedCount",
    "Never",
    "Next",
    "Outcome",
    "RandomTimes",
    "Signals",
    "WithinBudget",
    "parse",
    "register",
]
