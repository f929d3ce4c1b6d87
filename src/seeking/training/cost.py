"""What a run costs, counted in floating-point operations (FLOPs)."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_flops(model: nn.Module, loss_fn: Callable[[nn.Module, Any], Tensor], batch: Any) -> tuple[int, int]:
    """FLOPs of one forward pass, and of one forward and backward pass, on a batch.

    Counted by torch's own counter (matrix products, convolutions and attention; two operations for each
    multiply-add) on a copy of the model in training mode, on the batch's real shape. The random state is left as
    it was.
    """
    twin = copy.deepcopy(model).train()
    device = next(twin.parameters()).device
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), counter:
        loss = loss_fn(twin, batch)
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


@dataclass
class Cost:
    """FLOPs of each model on one sample, and how many samples and batches the run has put through it.

    Evaluation is not counted: it is not training.
    """

    base_flops: float
    """Forward and backward, of one sample."""
    motivated_flops: float = 0.0
    """Forward and backward, of one sample; 0 where there is no motivated model."""
    motivated_forward_flops: float = 0.0
    """Forward alone, of one sample."""
    batches: int = 0
    motivated_batches: int = 0
    samples: int = 0
    motivated_samples: int = 0
    recalibration_samples: int = 0
    """Samples in forward passes of the motivated model that only re-estimated its norm statistics."""

    @property
    def total(self) -> float:
        """FLOPs of all training steps so far."""
        return (
            self.samples * self.base_flops
            + self.motivated_samples * self.motivated_flops
            + self.recalibration_samples * self.motivated_forward_flops
        )

    def report(self) -> dict[str, float]:
        """Everything counted and, where there is a motivated model, the run against its alternatives.

        ``motivated_share``: motivated batches over all batches.
        ``of_motivated_alone``: the run's FLOPs over those of training the motivated model alone on as many batches;
        the inverse of the paper's measure of efficiency.
        ``of_both_alone``: over those of training each of the two models alone on as many batches.
        """
        report: dict[str, float] = {**asdict(self), "total": self.total}
        if self.motivated_flops and self.samples:
            report["motivated_share"] = self.motivated_batches / self.batches
            report["of_motivated_alone"] = self.total / (self.samples * self.motivated_flops)
            report["of_both_alone"] = self.total / (self.samples * (self.base_flops + self.motivated_flops))
        return report
