"""One optimizer step of one model."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from seeking.distributed.mean_loss import mean_over_processes
from seeking.distributed.sharding import is_sharded
from seeking.errors import ProcessError
from seeking.gradients import total_norm
from seeking.training.interrupts import Requests
from seeking.training.learner import Learner
from seeking.training.lending import Lending
from seeking.training.micro_batches import MicroBatches
from seeking.training.standing_in import StandIn

Loss = Callable[[nn.Module, Any], Tensor]
"""From a model and a batch to the mean loss, a tensor of one element."""


@dataclass
class Stepper:
    """Takes optimizer steps.

    Attributes:
        accelerator: for mixed precision and the other processes.
        clip_grad: greatest norm of a model's gradient, if it is to be clipped.
        requests: to stop or to save, on which the processes agree with every step.
        stand_in: for a process whose loss fails while others wait for it; None where that is not possible.
        updating: whether an optimizer is changing the weights, or has failed in doing so.
        lending: gives each model the batch as the loader made it.
    """

    accelerator: Accelerator
    clip_grad: float | None
    requests: Requests
    stand_in: StandIn | None = None
    updating: bool = False
    lending: Lending = field(default_factory=Lending)

    def backward(self, learner: Learner, batch: MicroBatches, loss_fn: Loss, also: Sequence[Learner] = ()) -> float:
        """Compute the gradient of the mean loss over all samples; ``update`` or ``discard`` must follow.

        Args:
            learner: the model.
            batch: micro-batches, whose gradients are accumulated.
            loss_fn: the loss.
            also: other models that the loss runs forward and backward.

        Raises:
            ProcessError: the loss has failed in another process, and no process takes the step.

        Returns:
            The mean loss over all processes.
        """
        start, scaler = time.perf_counter(), self.accelerator.scaler
        learners = (learner, *also)
        for each in learners:
            each.train_mode()
            each.keep_buffers()
        total: Tensor | None = None
        in_loss, number = False, 0
        try:
            for number, (micro_batch, weight) in enumerate(zip(batch, batch.weights, strict=True), start=1):
                synced = number == len(batch)
                with (
                    contextlib.nullcontext() if synced else self._no_sync(learners),
                    self.lending.lent(micro_batch, f"{learner.name} model") as lent,
                ):
                    in_loss = True
                    if self.stand_in:
                        self.stand_in.before(learners)
                    loss = loss_fn(learner.model, lent)
                    if weight != 1:
                        loss = loss * weight
                    in_loss = False
                    if self.stand_in:
                        self.stand_in.after(learner, micro_batch)
                    if weight:  # The mean over no targets is NaN.
                        value = loss.detach().float().reshape(())
                        total = value if total is None else total + value
                    # Not accelerate's own backward: like its optimizers, it looks for a package on the disk each time.
                    (loss if scaler is None else scaler.scale(loss)).backward()
        except Exception:
            remaining = len(batch) + 1 - number
            told = in_loss and self.stand_in is not None and self.stand_in.finish(learners, loss_fn, remaining)
            for each in learners:
                self.discard(each)
            if told:
                self._mean_loss(None, failed=True)
            raise
        for each in learners:
            each.complete_gradients()
        mean = self._mean_loss(total)
        if self.requests.failed:
            for each in learners:
                self.discard(each)
            if scaler is not None:
                scaler.update(scaler.get_scale())
            raise ProcessError("another process of this run has failed; see its message")
        learner.seconds += time.perf_counter() - start
        return mean

    def _no_sync(self, learners: Sequence[Learner]) -> contextlib.AbstractContextManager[Any]:
        """Inside, backward passes add up gradients without averaging them over the processes."""
        stack = contextlib.ExitStack()
        for learner in learners:
            stack.enter_context(self.accelerator.no_sync(learner.model))
        return stack

    def discard(self, learner: Learner) -> None:
        """Undo a backward pass that no update follows."""
        with contextlib.suppress(Exception):  # If the device is lost.
            learner.restore_buffers()
            learner.zero_grad()

    def update(self, learner: Learner, finite: bool) -> tuple[float, bool]:
        """Take the optimizer step that belongs to a gradient, unless the gradient is NaN or infinite.

        Gradients that overflow under fp16 are the scaler's matter, which skips the step by itself and scales down.

        Args:
            learner: the model.
            finite: whether the loss is; if not, no step is taken.

        Returns:
            The norm of the gradient before it is clipped; whether the step was taken.
        """
        start, scaler = time.perf_counter(), self.accelerator.scaler
        learner.drop_unshared_gradients()
        norm = float(self._gradient_norm(learner))
        finite = finite and (math.isfinite(norm) or scaler is not None)
        if not finite:
            learner.restore_buffers()
            if scaler is not None:  # It has unscaled the gradients, and waits for a step.
                scaler.update(scaler.get_scale())
        else:
            self.updating = True
            with learner.at_rate():
                if scaler is not None:
                    scaler.step(learner.optimizer)
                    scaler.update()
                else:
                    learner.optimizer.step()
            self.updating = False
        learner.zero_grad()
        learner.stepped = True
        learner.seconds += time.perf_counter() - start
        return norm, finite and math.isfinite(norm)

    @property
    def skips_overflows(self) -> bool:
        """Whether a gradient that is not finite is an overflow of fp16, after which the scale is lowered."""
        return self.accelerator.scaler is not None

    def _gradient_norm(self, learner: Learner) -> Tensor:
        """The norm of the whole gradient, which is then clipped if that is asked for."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(learner.optimizer)
        norm = total_norm(p.grad for p in learner.parameters if p.grad is not None)
        if self.clip_grad is not None:
            clip_grads_with_norm_(learner.parameters, self.clip_grad, norm)
        return norm.full_tensor() if is_sharded(norm) else norm

    def _mean_loss(self, loss: Tensor | None, failed: bool = False) -> float:
        """The mean over all processes, which agree here on whether to stop or to save after this batch; None is 0."""
        own = self.requests.requested(failed)
        if loss is None:
            loss = torch.zeros((), device=self.accelerator.device)
        if self.accelerator.num_processes == 1:
            return float(loss)
        mean, *asked = mean_over_processes(torch.cat([loss.reshape(1), loss.new_tensor(own)]))
        self.requests.agree(asked)
        return mean
