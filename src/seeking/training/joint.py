"""One optimizer step on the gradients of both models."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator

from seeking.conditions import Outcome
from seeking.gradients import add_gradients, total_norm
from seeking.training.learner import Learner
from seeking.training.run import Run


@contextlib.contextmanager
def discarded_on_error(run: Run, learner: Learner) -> Iterator[None]:
    """Inside, a gradient of this model waits for its step; it is discarded if something fails."""
    try:
        yield
    except Exception:
        discard(run, learner)
        raise


def discard(run: Run, *learners: Learner) -> None:
    """Undo backward passes that no update follows, and what the forward passes did to the buffers.

    Call this outside ``run.pair.motivated()``, with the latest first: buffers that both models share then are as they
    were before both.
    """
    for learner in learners:
        with run.synced(learner.name):
            run.stepper.discard(learner)


def with_norm(run: Run, outcome: Outcome) -> Outcome:
    """The outcome of a gradient of the base, with its norm."""
    return dataclasses.replace(outcome, grad_norm=float(total_norm(run.base.gradients().values())))


def update_jointly(run: Run, base: Outcome, motivated: Outcome, base_weight: float | None) -> Outcome:
    """Take one step of the motivated model's optimizer on the weighted sum of both gradients.

    The base's optimizer takes the step of those tensors that the base keeps for itself, on its weighted gradient.

    Call this inside ``run.pair.motivated()``, after a ``run.gradient`` of each model. If a loss or a gradient is NaN or
    infinite, the step is skipped for both; ``discard`` must follow outside.

    Args:
        run: the run.
        base: what is known of the base's gradient.
        motivated: what is known of the motivated model's gradient.
        base_weight: weight of the base's loss, in (0, 1); the motivated model's has the rest. None if the gradients are
            weighted already.

    Returns:
        The outcome of the motivated model.
    """
    weights = (1.0, 1.0) if base_weight is None else (base_weight, 1 - base_weight)
    if motivated.gradients is not None:  # The sum takes their place.
        own = {name: gradient.clone() for name, gradient in motivated.gradients.items()}
        shared = functools.partial(run.shared_part, own)
        motivated = dataclasses.replace(motivated, gradients=own, shared_gradients=shared)
    add_gradients(run.pair.base, run.pair.motivated_model, run.pair.map, *weights)
    own_norm = _keep_own_gradients(run, weights[0])
    outcome = run.update(run.motivated, motivated, finite=math.isfinite(own_norm))
    run.note(run.base, base.loss, None if base_weight is None else base.grad_norm)
    if outcome.taken:
        run.guard.succeeded(run.base)
        if run.pair.map.own:
            run.stepper.update(run.base, finite=True)
        run.base.zero_grad()
        run.base.stepped = True
    return outcome


def _keep_own_gradients(run: Run, weight: float) -> float:
    """Weigh the gradients of the base's own tensors, and leave it no others; their norm, 0 if there are none."""
    own = run.pair.map.own
    if not own:
        return 0.0
    kept = []
    for name, parameter in run.pair.base.named_parameters():
        if name not in own:
            parameter.grad = None
        elif parameter.grad is not None:
            kept.append(parameter.grad.mul_(weight))
    return float(total_norm(kept))
