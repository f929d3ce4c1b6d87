"""Optimizers and schedules by name."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
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

from seeking.distributed.sharding import copy_into
from seeking.errors import INCOMPATIBLE_STATE_ERRORS, SeekingError, unknown
from seeking.training.config import TrainConfig

FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
"""Optimizers that PyTorch has in one kernel."""

MakeOptimizer = Callable[[nn.Module], Optimizer]
MakeSchedule = Callable[[Optimizer, int], LRScheduler]
"""From an optimizer and the number of batches of the whole run to a schedule that is stepped once a batch."""


def make_optimizer(model: nn.Module, config: TrainConfig, fused: bool) -> Optimizer:
    """Any of timm's optimizers, fused if that is wanted and there is such a kernel; no weight decay on biases and other
    vectors.

    Raises:
        SeekingError: no such optimizer, or it refuses its arguments.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    known = [str(name) for name in list_optimizers()]
    if config.optimizer not in known:
        raise unknown("optimizer", config.optimizer, known)
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "momentum": config.momentum}
    try:
        optimizer = create_optimizer_v2(model, config.optimizer, **options)
        if fused and isinstance(optimizer, FUSED):
            with contextlib.suppress(RuntimeError):  # For parameters that its kernel does not take.
                optimizer = create_optimizer_v2(model, config.optimizer, fused=True, **options)
        return optimizer
    except (TypeError, ValueError, AssertionError, RuntimeError, ImportError) as error:
        raise SeekingError(f"optimizer {config.optimizer} cannot be made: {error}") from error


def make_schedule(optimizer: Optimizer, config: TrainConfig, steps: int) -> LRScheduler:
    """The schedule of ``config`` over ``steps`` batches."""
    warmup = round(config.warmup_epochs * steps / config.epochs)
    rest = max(1, steps - warmup)
    if config.schedule == "onecycle":
        rise = min(warmup, steps - 1) / steps if warmup else 0.3
        return OneCycleLR(optimizer, config.lr, total_steps=max(2, steps), pct_start=rise, cycle_momentum=False)
    main: LRScheduler
    if config.schedule == "cosine":
        main = CosineAnnealingLR(optimizer, rest)
    elif config.schedule == "step":
        main = MultiStepLR(optimizer, [rest // 2, rest * 3 // 4])
    else:
        main = LambdaLR(optimizer, lambda step: 1.0)
    if not warmup:
        return main
    linear = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup)
    return SequentialLR(optimizer, [linear, main], milestones=[warmup])


def check_shareable(make: MakeOptimizer, use: str, instead: str) -> None:
    """Make sure, on a layer of its own, that an optimizer's state can be taken apart like its parameters.

    Args:
        make: makes the optimizer.
        use: what is to be done with the state, for the message.
        instead: what to set where it cannot be.

    Raises:
        SeekingError: it holds a tensor that is neither shaped like its parameter nor a single number.
    """
    layer = nn.Linear(130, 140)  # Some optimizers only factor the state of large matrices.
    trial = make(layer)
    layer(torch.ones(2, 130)).sum().backward()
    trial.step()
    for parameter in layer.parameters():
        for slot, value in trial.state[parameter].items():
            if isinstance(value, Tensor) and value.numel() > 1 and value.shape != parameter.shape:
                raise SeekingError(
                    f"optimizer {type(trial).__name__}: its state {slot!r} is {list(value.shape)} for a parameter of "
                    f"{list(parameter.shape)}, so it cannot be {use}; {instead}, or take another optimizer"
                )


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state exactly: torch's own way rounds it to the dtype of the parameters, and takes the
    layout of what is loaded instead of theirs, by which sums round differently.

    Raises:
        SeekingError: it is the state of another optimizer.
    """
    switches = [{k: v for k, v in group.items() if isinstance(v, bool)} for group in optimizer.param_groups]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        groups = [dict(group) for group in state["param_groups"]]
        for group, ours in zip(groups, optimizer.param_groups, strict=True):
            # How steps are computed, not what they are: what is sharded takes no fused ones.
            group.update({key: ours[key] for key in ("fused", "foreach") if key in ours and key in group})
        slots = {
            number: {slot: value for slot, value in saved.items() if not _is_sharded(parameters[number], value)}
            for number, saved in state["state"].items()
        }
        optimizer.load_state_dict({"state": slots, "param_groups": groups})
        for group, ours in zip(optimizer.param_groups, switches, strict=True):
            for key, value in ours.items():
                if group[key] is not value:
                    raise ValueError(f"{key} was {group[key]!r} and is {value} now")
        for number, saved in state["state"].items():
            parameter = parameters[number]
            own = optimizer.state[parameter]
            for slot, value in saved.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    own[slot] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                    copy_into(own[slot], value)
                elif isinstance(value, Tensor) and own[slot].dtype != value.dtype:
                    own[slot] = value.to(own[slot].device)
    except INCOMPATIBLE_STATE_ERRORS as error:
        raise SeekingError(f"the state of another optimizer ({type(error).__name__}: {error})") from error


def _is_sharded(parameter: Tensor, value: Any) -> bool:
    """Whether this process holds a shard of a value; torch would first copy all of it to the device."""
    return isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape
