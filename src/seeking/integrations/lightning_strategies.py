"""What of Lightning trains a pair: one device and DDP, and all callbacks but those that average tied weights."""

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from seeking.errors import SeekingError
from seeking.integrations import missing
from seeking.pair import Pair

try:
    from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
    from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
except ModuleNotFoundError as error:
    raise missing("lightning", "lightning") from error


def check_trainer(trainer: Any, pair: Pair) -> None:
    """Make sure that a trainer trains both models.

    Raises:
        SeekingError: its strategy would shard or wrap the base alone, or a callback would exchange or average
            the weights that both models share twice.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, (DDPStrategy, SingleDeviceStrategy)):
        raise SeekingError(
            f"{type(strategy).__name__} cannot train a pair; give L.Trainer(strategy='ddp') or one device, or use "
            "seeking.Trainer, with shard=True for FSDP"
        )
    for callback in trainer.callbacks:
        name = type(callback).__name__
        if isinstance(callback, StochasticWeightAveraging):
            raise SeekingError(
                f"{name} averages tied weights twice, and estimates the statistics of batch normalization anew for the "
                "base alone; give WeightAveraging or EMAWeightAveraging, with Pair(..., tie=False)"
            )
        if isinstance(callback, WeightAveraging) and pair.tie:
            raise SeekingError(
                f"{name} exchanges each weight with its average, those that both models share twice; give "
                "Pair(..., tie=False), so that each model has them for itself between its steps"
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
