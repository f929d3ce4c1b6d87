"""Cost of a run in floating-point operations (FLOPs)."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seeking.copies import copied, random_state_preserved, scratch_copy
from seeking.internals import flop_counter
from seeking.training.modes import set_modes, training_modes


@contextlib.contextmanager
def attention_counted(model: nn.Module) -> Iterator[None]:
    """Inside, attention consists of operations that ``torch.utils.flop_counter`` knows.

    The fused kernel of CPUs is not among them.
    """
    on_cpu = any(parameter.device.type == "cpu" for parameter in model.parameters())
    with sdpa_kernel(SDPBackend.MATH) if on_cpu else contextlib.nullcontext():
        yield


def count_flops(model: nn.Module, loss_fn: Callable[[nn.Module, Any], Tensor], batch: Any) -> tuple[int, int]:
    """Count the FLOPs of a forward pass, and of a forward and backward pass, on a batch.

    Matrix products, convolutions and attention are counted, two operations for each multiply-add. The count runs on a
    copy of the model in training mode; the model and the random state stay unchanged.

    Returns:
        FLOPs of the forward pass; FLOPs of the forward and backward pass together.
    """
    model_copy = scratch_copy(model)
    set_modes(training_modes(model_copy))
    counter = flop_counter()
    with random_state_preserved(), attention_counted(model), counter:
        loss = loss_fn(model_copy, copied(batch))
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


@dataclass
class Cost:
    """FLOPs of each model per sample, and the samples and batches that it was trained on.

    Evaluation is not counted.
    """

    base_flops: float = 0.0
    """Forward and backward pass of the base, per sample; 0 without a base."""
    motivated_flops: float = 0.0
    """Forward and backward pass of the motivated model, per sample; 0 without one."""
    motivated_forward_flops: float = 0.0
    """Forward pass of the motivated model, per sample."""
    base_forward_flops: float = 0.0
    """Forward pass of the base, per sample."""
    prefix_flops: float = 0.0
    """Those of the base that one pass of both models saves, per sample."""
    batches: int = 0
    """Batches of the run so far."""
    run_samples: int = 0
    """Samples in those batches."""
    motivated_batches: int = 0
    """Batches on which the motivated model was trained."""
    samples: int = 0
    """Samples that the base was trained on."""
    motivated_samples: int = 0
    """Samples that the motivated model was trained on."""
    recalibration_samples: int = 0
    """Samples in forward passes that only re-estimated the norm statistics of the motivated model."""
    held_out_samples: int = 0
    """Samples in forward passes of the base that only measured its loss on held-out data, for a condition."""
    one_pass_samples: int = 0
    """Samples that one pass served both models on."""
    other_flops: float = 0.0
    """Other FLOPs of training steps, such as the forward passes of a teacher."""

    @property
    def total(self) -> float:
        """FLOPs of all training steps so far, and of what conditions have measured."""
        return (
            self.samples * self.base_flops
            + self.motivated_samples * self.motivated_flops
            + self.recalibration_samples * self.motivated_forward_flops
            + self.held_out_samples * self.base_forward_flops
            + self.other_flops
            - self.one_pass_samples * self.prefix_flops
        )

    def of_sample(self, model: str) -> float:
        """FLOPs of a training step of ``base`` or ``motivated``, per sample."""
        return self.base_flops if model == "base" else self.motivated_flops

    def add_batch(self, samples: int) -> None:
        """Count a batch of the run, whichever models step on it."""
        self.batches += 1
        self.run_samples += samples

    def add_step(self, model: str, samples: int) -> None:
        """Count a training step.

        Args:
            model: ``base`` or ``motivated``.
            samples: samples in the batch, over all processes.
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
            TypeError, ValueError: these are not counts.
        """
        counts = asdict(Cost(**state))
        if not all(type(value) in (int, float) for value in counts.values()):
            raise ValueError(f"a count of the cost is not a number: {counts}")
        vars(self).update(counts)

    def report(self) -> dict[str, float]:
        """All counts and, for a pair, the cost relative to training the models alone.

        ``motivated_share``: motivated batches over all batches.
        ``of_motivated_alone``: FLOPs of the run over those of training the motivated model alone on as many batches
        (the inverse of the paper's efficiency).
        ``of_both_alone``: FLOPs of the run over those of training both models alone on as many batches.
        """
        report: dict[str, float] = {**asdict(self), "total": self.total}
        if self.base_flops and self.motivated_flops and self.run_samples:
            report["motivated_share"] = self.motivated_batches / self.batches
            report["of_motivated_alone"] = self.total / (self.run_samples * self.motivated_flops)
            report["of_both_alone"] = self.total / (self.run_samples * (self.base_flops + self.motivated_flops))
        return report
