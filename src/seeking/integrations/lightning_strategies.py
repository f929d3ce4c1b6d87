"""Strategies of Lightning that train a pair: one device, and DDP."""

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from seeking.errors import SeekingError
from seeking.integrations import missing

try:
    from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
except ModuleNotFoundError as error:
    raise missing("lightning", "lightning") from error


def check_strategy(strategy: Any) -> None:
    """Make sure that a strategy trains both models.

    Raises:
        SeekingError: it would shard or wrap the base alone.
    """
    if not isinstance(strategy, (DDPStrategy, SingleDeviceStrategy)):
        raise SeekingError(
            f"{type(strategy).__name__} cannot train a pair; give L.Trainer(strategy='ddp') or one device, or use "
            "seeking.Trainer, with shard=True for FSDP"
        )


def parallel(step: nn.Module, strategy: Any) -> nn.Module:
    """The motivated model's step in all processes, with the options of DDP that the base's has."""
    if not isinstance(strategy, DDPStrategy):
        return step
    base = strategy.model
    assert isinstance(base, DistributedDataParallel)
    return DistributedDataParallel(
        step,
        device_ids=strategy.determine_ddp_device_ids(),
        broadcast_buffers=base.broadcast_buffers,
        find_unused_parameters=base.find_unused_parameters,
        static_graph=base.static_graph,
    )
