"""A process whose loss has failed takes part in what remains of the step, so that all processes learn of it there."""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from torch import nn

from seeking.copies import copied
from seeking.training.learner import Learner


class StandIn:
    """Computes on an earlier batch in place of one on which the loss has failed; the gradients are zero.

    The other processes wait for this one in their backward pass. When it has taken part, they are told, no process
    takes the step, and all of them hold the models of the step before.

    Args:
        accelerator: for the other processes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._batches: dict[str, Any] = {}
        self._entered: dict[str, bool] = {}

    def before(self, learners: Sequence[Learner]) -> None:
        """Take note that the loss of a micro-batch begins, which runs these models."""
        for learner in learners:
            if learner.name not in self._entered:
                learner.model.register_forward_pre_hook(functools.partial(self._enter, learner.name))
            self._entered[learner.name] = False

    def after(self, learner: Learner, micro_batch: Any) -> None:
        """Keep a micro-batch whose loss has not failed."""
        self._batches[learner.name] = micro_batch

    def finish(self, learners: Sequence[Learner], loss_fn: Any, remaining: int) -> bool:
        """Take part in the remaining micro-batches of a step; returns whether that was possible.

        Args:
            learners: the model whose loss has failed, and others that the loss runs.
            loss_fn: the loss.
            remaining: micro-batches, with the one that has failed.
        """
        learner = learners[0]
        if learner.name not in self._batches:
            return False
        for each in learners:
            if self._entered[each.name] and isinstance(each.model, nn.parallel.DistributedDataParallel):
                each.model.require_forward_param_sync = False  # The buffers have been sent before the failure.
        try:
            for number in reversed(range(remaining)):
                with contextlib.ExitStack() as stack:
                    for each in learners if number else ():
                        stack.enter_context(self._accelerator.no_sync(each.model))
                    loss = loss_fn(learner.model, copied(self._batches[learner.name]))
                    (loss * 0).backward()
        except Exception:  # The first error is the one to tell.
            return False
        return True

    def _enter(self, name: str, *_: Any) -> None:
        self._entered[name] = True
