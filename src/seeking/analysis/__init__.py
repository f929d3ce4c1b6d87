"""Analysis of a pair: agreement of the gradients, what a step does, sharpness, the loss between two solutions."""

from seeking.analysis.gradients import Agreement, agreement
from seeking.analysis.line import Point, losses_along_line
from seeking.analysis.sharpness import Sharpness, sharpness

__all__ = ["Agreement", "Point", "Sharpness", "agreement", "losses_along_line", "sharpness"]
