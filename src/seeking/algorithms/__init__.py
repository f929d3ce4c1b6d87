"""Algorithms: how a batch trains the models, one function each. A new algorithm is one file."""

from seeking.algorithms.alone import alone
from seeking.algorithms.distillation import distillation
from seeking.algorithms.motivated import motivated
from seeking.algorithms.sandwich import sandwich
from seeking.algorithms.scheduled import Scheduled

__all__ = ["Scheduled", "alone", "distillation", "motivated", "sandwich"]
