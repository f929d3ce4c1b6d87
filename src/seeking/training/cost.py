"""What a run costs, counted in floating-point operations (FLOPs)."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seeking.copies import copied, random_state_preserved, scratch_copy


def count_flops(model: nn.Module, loss_fn: Callable[[nn.Module, Any], Tensor], batch: Any) -> tuple[int, int]:
    """FLOPs of one forward pass, and of one forward and backward pass, on a batch.

    Counted by torch's own counter (matrix products, convolutions and attention; two operations for each
    multiply-add) on a copy of the model in training mode, on the batch's real shape. The random state is left as
    it was.
    """
    twin = scratch_copy(model).train()
    counter = FlopCounterMode(display=False)
    with random_state_preserved(), counter:
        loss = loss_fn(twin, copied(batch))
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


@dataclass
class Cost:
    """FLOPs of each model on one sample, and how many samples and batches the run has put through it.

    Evaluation is not counted: it is not training.
    """

    base_flops: float = 0.0
    """Forward and backward, of one sample; 0 where there is no base."""
    motivated_flops: float = 0.0
    """Forward and backward, of one sample; 0 where there is no motivated model."""
    motivated_forward_flops: float = 0.0
    """Forward alone, of one sample."""
    batches: int = 0
    """Batches of the run."""
    motivated_batches: int = 0
    """Batches on which the motivated model was trained."""
    samples: int = 0
    """Samples that the base was trained on."""
    motivated_samples: int = 0
    """Samples that the motivated model was trained on."""
    recalibration_samples: int = 0
    """Samples in forward passes of the motivated model that only re-estimated its norm statistics."""
    other_flops: float = 0.0
    """FLOPs of training steps beyond those of the two models, such as a teacher's forward passes."""

    @property
    def total(self) -> float:
        """FLOPs of all training steps so far."""
        return (
            self.samples * self.base_flops
            + self.motivated_samples * self.motivated_flops
            + self.recalibration_samples * self.motivated_forward_flops
            + self.other_flops
        )

    def of_sample(self, model: str) -> float:
        """FLOPs of a training step of ``base`` or ``motivated`` on one sample."""
        return self.base_flops if model == "base" else self.motivated_flops

    def add_step(self, model: str, samples: int) -> None:
        """Count a training step.

        Args:
            model: ``base`` or ``motivated``.
            samples: in the batch, over all processes.
        """
        if model == "base":
            self.samples += samples
        else:
            self.motivated_batches += 1
            self.motivated_samples += samples

    def state_dict(self) -> dict[str, Any]:
        """All counts."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from these counts.

        Raises:
            TypeError, ValueError: they are not counts.
        """
        counts = asdict(Cost(**state))
        if not all(type(value) in (int, float) for value in counts.values()):
            raise ValueError(f"a count of the cost is not a number: {counts}")
        vars(self).update(counts)

    def report(self) -> dict[str, float]:
        """Everything counted and, for a pair, the run against its alternatives.

        ``motivated_share``: motivated batches over all batches.
        ``of_motivated_alone``: the run's FLOPs over those of training the motivated model alone on as many batches;
        the inverse of the paper's measure of efficiency.
        ``of_both_alone``: over those of training each of the two models alone on as many batches.
        """
        report: dict[str, float] = {**asdict(self), "total": self.total}
        if self.base_flops and self.motivated_flops and self.samples:
            report["motivated_share"] = self.motivated_batches / self.batches
            report["of_motivated_alone"] = self.total / (self.samples * self.motivated_flops)
            report["of_both_alone"] = self.total / (self.samples * (self.base_flops + self.motivated_flops))
        return report
