"""Pairs whose parameters are sharded over processes by FSDP2 (``torch.distributed.fsdp.fully_shard``)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils import _pytree as pytree

from seeking.errors import SeekingError
from seeking.matching.align import stages
from seeking.weights_map import Entry, tensors

Place = tuple[nn.Module, str]
"""A module and the name of a parameter of its own."""


def shard(model: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> None:
    """Shard a model over all processes, each block of its stages by itself. The first process's values are taken.

    Args:
        model: on the device.
        device: of this process.
        dtype: what parameters are gathered as, if not as they are. Gradients are summed as float32.

    Raises:
        SeekingError: the model has statistics of its data, which would be other ones in each process.
    """
    for name, module in model.named_modules():
        if getattr(module, "running_mean", None) is not None:
            raise SeekingError(
                f"{name} ({type(module).__name__}) estimates statistics, which models that are sharded cannot keep "
                "alike in all processes; turn shard off, or take another norm"
            )
    policy = MixedPrecisionPolicy(dtype, torch.float32 if dtype else None)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for tensor in tensors(model).values():
        torch.distributed.broadcast(tensor.data, 0)
    for module in reversed([*model.modules()]):  # From the inside out.
        for block in (block for stage in stages(module).values() for block in stage.values()):
            container = isinstance(block, nn.ModuleList | nn.ModuleDict)
            layers, parameters = next(block.children(), None), next(block.parameters(), None)
            if layers is not None and parameters is not None and not container:
                fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def reshard(*models: nn.Module) -> None:
    """Let go of the parameters that an evaluation has gathered, before others change them."""
    for model in models:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def whole(state: Any, keep: bool) -> Any:
    """A state with whole tensors on the CPU in place of sharded ones; all processes take part, and some keep them.

    What occurs in several places, or shares a shard, is gathered once.
    """
    known: dict[int, Tensor] = {}

    def gathered(tensor: DTensor) -> Tensor:
        key = id(tensor._local_tensor)  # By object: all processes must find the same, and empty shards have no address.
        if key not in known:
            found = tensor.full_tensor()
            known[key] = found.cpu() if keep else torch.empty(0)
        return known[key]

    return pytree.tree_map_only(DTensor, gathered, state)


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy values into a tensor, of which this process may hold a shard."""
    if isinstance(tensor, DTensor):
        values = values.to(tensor.device)
        values = distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)
    tensor.copy_(values)


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
            "Keep them whole in each process (DistributedDataParallel, which the trainer uses without shard)"
        )
    if small.padded_sharded_param_size != large.padded_sharded_param_size:
        raise SeekingError(f"{entry.target} is sharded over other processes than the base's; shard both alike")
    shard: Tensor = small.sharded_param._local_tensor
    if large.sharded_param._local_tensor is not shard:
        large.sharded_param._local_tensor = shard
        large._sharded_param_data = small._sharded_param_data
    return shard
