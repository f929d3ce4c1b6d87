"""Pairs whose parameters are sharded over processes by FSDP2 (``torch.distributed.fsdp.fully_shard``)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from seeking.errors import SeekingError
from seeking.weights_map import Entry

Place = tuple[nn.Module, str]
"""A module and the name of a parameter of its own."""


def sharded(model: nn.Module) -> dict[Place, Any]:
    """What FSDP2 holds for each parameter that it has sharded; nothing where the model as a whole is not."""
    if not isinstance(model, FSDPModule):
        return {}
    groups = [
        group
        for module in model.modules()
        if isinstance(module, FSDPModule) and (group := module._get_fsdp_state()._fsdp_param_group)
    ]
    return {
        (held._module_info.module, held._module_info.param_name): held for group in groups for held in group.fsdp_params
    }


def tie(base: Mapping[Place, Any], motivated: Mapping[Place, Any], ours: Place, theirs: Place, entry: Entry) -> Tensor:
    """Have a parameter of both models use one shard in each process, and give it.

    There is no public way: the shard is known to the parameter, and to what gathers it.

    Raises:
        SeekingError: the parameter is only part of the other, or one of them is not sharded.
    """
    small, large = base.get(ours), motivated.get(theirs)
    if small is None or large is None:
        which = "base" if small is None else "motivated"
        raise SeekingError(f"{entry.target} is sharded in one model and not in the {which} model; shard both alike")
    if not entry.whole:
        raise SeekingError(
            f"{entry.target} is larger than the base's, and both are sharded; only pairs that differ in depth can be. "
            "Use DistributedDataParallel"
        )
    if small.padded_sharded_param_size != large.padded_sharded_param_size:
        raise SeekingError(f"{entry.target} is sharded over other processes than the base's; shard both alike")
    shard: Tensor = small.sharded_param._local_tensor
    if large.sharded_param._local_tensor is not shard:
        large.sharded_param._local_tensor = shard
        large._sharded_param_data = small._sharded_param_data
    return shard
