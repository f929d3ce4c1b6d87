"""The verdict on two models in one mode, whatever precision they insist on and however large their numbers are."""

import contextlib
import dataclasses

import torch

from seeking.verification.comparison import REFUSES, Comparison, RefusedError, Subject
from seeking.verification.diagnose import own_constant
from seeking.verification.verdict import Verification
from seeking.verification.views import computes_otherwise, decides
from seeking.verification.weights import multiplied

SINGLE_TOLERANCE = 1e-5
"""Least tolerance where models compute in float32."""

LOUDER = 64.0
"""Weights and inputs are multiplied by so much to reach bounds, such as that of a ReLU6, or other branches."""

LOUD_TOLERANCE = 1e-6
"""Least tolerance there, where rounding is a greater part of what large numbers cancel to."""


def prove(subject: Subject, tolerance: float) -> Verification:
    """The verdict in float64 or, if models insist on less, in float32.

    Raises:
        RefusedError: the base does not run.
    """
    dtype = torch.float64
    try:
        verdict = Comparison(subject, dtype, tolerance).verdict()
    except RefusedError:
        verdict = None
    if verdict is None or verdict.reason.startswith(REFUSES):
        dtype, tolerance = torch.float32, max(tolerance, SINGLE_TOLERANCE)
        verdict = Comparison(subject, dtype, tolerance).verdict()
    for times, size in _other_sizes(subject) if verdict else ():
        other = dataclasses.replace(subject, batch=multiplied(subject.batch, times), times=times)
        with contextlib.suppress(RefusedError):
            compared = Comparison(other, dtype, max(tolerance, LOUD_TOLERANCE)).verdict()
            if not compared:
                reason = f"with numbers that are {LOUDER:.0f} times as {size}, {compared.reason}"
                return dataclasses.replace(compared, reason=reason)
    # Would they agree if the motivated model had the base's constants?
    if subject.constants and not verdict and prove(dataclasses.replace(subject, constants=frozenset()), tolerance):
        return dataclasses.replace(verdict, reason=_own_constant(subject), contained=False)
    return verdict


def _other_sizes(subject: Subject) -> list[tuple[float, str]]:
    """The sizes of numbers, other than the batch's, for which the models may compute something else."""
    views = subject.base_view, subject.view
    if any(map(decides, views)):
        return [(LOUDER, "large"), (1 / LOUDER, "small")]
    return [(LOUDER, "large")] if computes_otherwise(*views) else []


def _own_constant(subject: Subject) -> str:
    targets = {name: subject.weights_map.entries[name].target for name in subject.constants}
    reached = {name for name, target in targets.items() if subject.view and target in subject.view.axes}
    return own_constant(subject.base, subject.motivated, subject.weights_map, reached or subject.constants)
