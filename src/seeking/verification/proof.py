"""The verdict on two models in one mode, whatever precision they insist on and however large their numbers are."""

import contextlib
import dataclasses
from collections.abc import Iterator

import torch

from seeking.verification.comparison import REFUSES, Comparison, RefusedError, Subject
from seeking.verification.diagnose import own_constant
from seeking.verification.remembered import ROUNDED
from seeking.verification.verdict import Verification
from seeking.verification.views import computes_otherwise, depends_on_size
from seeking.verification.weights import is_uniform, multiplied, varied
from seeking.weights_map import has_double, tensors

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
    dtype, verdict = torch.float64, None
    if all(has_double(tensor.device) for tensor in tensors(subject.base).values()):
        with contextlib.suppress(RefusedError):
            verdict = Comparison(subject, dtype, tolerance).verdict()
    if verdict is None or verdict.reason.startswith(REFUSES):
        dtype, tolerance = torch.float32, max(tolerance, SINGLE_TOLERANCE)
        verdict = Comparison(subject, dtype, tolerance).verdict()
    if not verdict and verdict.difference < ROUNDED and not subject.has_run:
        # One of the models may have kept from an earlier pass, in less precision, what the other has not.
        with contextlib.suppress(RefusedError):
            if after := prove(dataclasses.replace(subject, has_run=True), tolerance):
                return after
    for numbers, other in _with_other_numbers(subject) if verdict else ():
        with contextlib.suppress(RefusedError):
            compared = Comparison(other, dtype, max(tolerance, LOUD_TOLERANCE)).verdict()
            if not compared:
                return dataclasses.replace(compared, reason=f"with {numbers}, {compared.reason}")
    # Would they agree if the motivated model had the base's constants?
    if subject.constants and not verdict and prove(dataclasses.replace(subject, constants=frozenset()), tolerance):
        return dataclasses.replace(verdict, reason=_own_constant(subject), contained=False)
    return verdict


def _with_other_numbers(subject: Subject) -> Iterator[tuple[str, Subject]]:
    """What the batch may hide: other numbers, in words, and the same comparison with them."""
    if is_uniform(subject.batch):  # On which most operations agree.
        yield "random numbers in the batch", dataclasses.replace(subject, batch=varied(subject.batch, subject.seed))
    views = subject.base_view, subject.view
    sizes = []
    if any(map(depends_on_size, views)):
        sizes = [(LOUDER, "large"), (1 / LOUDER, "small")]
    elif computes_otherwise(*views):
        sizes = [(LOUDER, "large")]
    for times, size in sizes:
        batch = multiplied(subject.batch, times)
        other = dataclasses.replace(subject, batch=batch, times=times)
        yield f"numbers that are {LOUDER:.0f} times as {size}", other


def _own_constant(subject: Subject) -> str:
    targets = {name: subject.weights_map.entries[name].target for name in subject.constants}
    reached = {name for name, target in targets.items() if subject.view and target in subject.view.axes}
    return own_constant(subject.base, subject.motivated, subject.weights_map, reached or subject.constants)
