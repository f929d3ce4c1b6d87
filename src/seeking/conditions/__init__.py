"""Motivation conditions: signals in, a decision out. A new condition is one file here that registers it."""

from seeking.conditions.agreement import GradientAgreement
from seeking.conditions.bandit import Exp3
from seeking.conditions.base import Condition, OnePass, Outcome, Signals
from seeking.conditions.budget import Affordable, WithinBudget
from seeking.conditions.delay import Next
from seeking.conditions.grad_norm import LowGradNorm
from seeking.conditions.grammar import parse
from seeking.conditions.held_out import HeldOutDecrease
from seeking.conditions.loss import ConsecutiveDecrease
from seeking.conditions.registry import register
from seeking.conditions.schedule import After, Always, Before, Every, Never
from seeking.conditions.smoothed import SmoothedDecrease
from seeking.conditions.stochastic import MatchedCount, RandomTimes
from seeking.conditions.trend import BelowTrend

__all__ = [
    "Affordable",
    "After",
    "Always",
    "Before",
    "BelowTrend",
    "Condition",
    "ConsecutiveDecrease",
    "Every",
    "Exp3",
    "GradientAgreement",
    "HeldOutDecrease",
    "LowGradNorm",
    "MatchedCount",
    "Never",
    "Next",
    "OnePass",
    "Outcome",
    "RandomTimes",
    "Signals",
    "SmoothedDecrease",
    "WithinBudget",
    "parse",
    "register",
]
