"""Optimizers and schedules by name."""

from collections.abc import Callable

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from seeking.errors import SeekingError, unknown
from seeking.training.config import TrainConfig

MakeOptimizer = Callable[[nn.Module], Optimizer]
MakeSchedule = Callable[[Optimizer, int], LRScheduler]
"""From an optimizer and the number of batches of the whole run to a schedule that is stepped once a batch."""


def make_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Any of timm's optimizers; no weight decay on biases and other vectors.

    Raises:
        SeekingError: no such optimizer, or it refuses its arguments.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    known = [str(name) for name in list_optimizers()]
    if config.optimizer not in known:
        raise unknown("optimizer", config.optimizer, known)
    try:
        return create_optimizer_v2(
            model, config.optimizer, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )
    except (TypeError, ValueError, AssertionError, RuntimeError, ImportError) as error:
        raise SeekingError(f"optimizer {config.optimizer} cannot be made: {error}") from error


def make_schedule(optimizer: Optimizer, config: TrainConfig, steps: int) -> LRScheduler:
    """The schedule of ``config`` over ``steps`` batches."""
    warmup = round(config.warmup_epochs * steps / config.epochs)
    rest = max(1, steps - warmup)
    if config.schedule == "onecycle":
        return OneCycleLR(optimizer, config.lr, total_steps=max(2, steps), pct_start=warmup / steps if warmup else 0.3)
    main: LRScheduler
    if config.schedule == "cosine":
        main = CosineAnnealingLR(optimizer, rest)
    elif config.schedule == "step":
        main = MultiStepLR(optimizer, [rest // 2, rest * 3 // 4])
    else:
        main = LambdaLR(optimizer, lambda step: 1.0)
    if not warmup:
        return main
    rise = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup)
    return SequentialLR(optimizer, [rise, main], milestones=[warmup])
