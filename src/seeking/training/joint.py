"""One optimizer step on the gradients of both models."""

import contextlib
from collections.abc import Iterator

import torch
from torch.nn.utils import get_total_norm

from seeking.conditions import Outcome
from seeking.pair import MAX_BLOCKS, Pair
from seeking.training.learner import Learner
from seeking.training.run import Run


@contextlib.contextmanager
def discarded_on_error(run: Run, learner: Learner) -> Iterator[None]:
    """Inside, a gradient of this model waits for its step; it is discarded if something fails."""
    try:
        yield
    except Exception:
        run.stepper.discard(learner)
        raise


def update_jointly(run: Run, base: Outcome, motivated: Outcome, base_weight: float) -> Outcome:
    """Take one step of the motivated model's optimizer on the weighted sum of both gradients.

    Call this inside ``run.pair.motivated()``, after a ``run.gradient`` of each model. If a loss or a gradient is NaN or
    infinite, the step is skipped for both.

    Args:
        run: the run.
        base: what is known of the base's gradient.
        motivated: what is known of the motivated model's gradient.
        base_weight: weight of the base's loss, in (0, 1); the motivated model's has the rest.

    Returns:
        The outcome of the motivated model.
    """
    norm = float(get_total_norm([*run.base.gradients().values()]))
    add_gradients(run.pair, base_weight)
    outcome = run.update(run.motivated, motivated)
    run.note(run.base, base.loss, norm)
    if outcome.taken:
        run.guard.succeeded(run.base)
        run.base.optimizer.zero_grad()
        run.base.stepped = True
    else:
        run.stepper.discard(run.base)
    return outcome


@torch.no_grad()
def add_gradients(pair: Pair, base_weight: float) -> None:
    """Put the weighted sum of both models' gradients where the motivated model has its own.

    Args:
        pair: of which each model has gradients.
        base_weight: weight of the base's gradient, in (0, 1); the motivated model's has the rest.
    """
    targets = dict(pair.motivated_model.named_parameters(remove_duplicate=False))
    for target in pair.motivated_model.parameters():
        if target.grad is not None:
            target.grad.mul_(1 - base_weight)
    for name, parameter in pair.base.named_parameters():
        if parameter.grad is None:
            continue
        entry = pair.map.entries[name]
        target = targets[entry.target]
        if target.grad is None:
            target.grad = torch.zeros_like(target)
        if entry.whole:
            target.grad.add_(parameter.grad, alpha=base_weight)
        elif entry.block_count() <= MAX_BLOCKS:
            for here, there in entry.blocks():
                target.grad[there].add_(parameter.grad[here], alpha=base_weight)
        else:
            target.grad[entry.mesh(target.device)] += base_weight * parameter.grad
