"""Pairs whose parameters are sharded over processes by FSDP2 (``torch.distributed.fsdp.fully_shard``).

Its modules take a second to import, so only ``shard`` does that: nothing is sharded before.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed
from torch import Tensor, nn

from seeking.errors import SeekingError
from seeking.internals import (
    Owner,
    fsdp_parameters,
    fsdp_shard,
    fsdp_shard_size,
    local_tensor_id,
    share_fsdp_shard,
    tree_map_only,
)
from seeking.matching.align import stages
from seeking.weights_map import Entry, tensors

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: object) -> "TypeGuard[DTensor]":
    """Whether this is a tensor of which each process holds a shard."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def _is_sharded_module(module: Any) -> bool:
    """Whether FSDP2 has sharded this module."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def shard(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
    """Shard a model over all processes, block by block, with the values of the first process.

    Args:
        model: the model, on the device.
        device: device of this process.
        dtype: dtype of gathered parameters; their own if None. Gradients are summed in float32.

    Raises:
        SeekingError: the model has running statistics, which would differ between processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    for name, module in model.named_modules():
        if getattr(module, "running_mean", None) is not None:
            raise SeekingError(
                f"{name} ({type(module).__name__}) has running statistics, which would differ between the processes "
                "of a sharded model; turn shard off, or use another norm"
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
    """Free gathered parameters, before the other model changes them."""
    module: Any
    for model in models:
        for module in model.modules():
            if _is_sharded_module(module):
                module.reshard()


def gather_full_tensors(state: Any, keep: bool) -> Any:
    """Replace the sharded tensors of a state by full tensors on the CPU; all processes must call this.

    ``torch.distributed.checkpoint.state_dict.get_model_state_dict`` only gathers what a ``state_dict`` holds. The state
    of a run also has non-persistent buffers, optimizer states under other names, and tied tensors that must be gathered
    once.

    Args:
        state: nested lists, tuples and dictionaries.
        keep: whether this process needs the tensors.
    """
    gathered: dict[int, Tensor] = {}

    def gather(tensor: "DTensor") -> Tensor:
        key = local_tensor_id(tensor)  # By object, since all processes must agree and empty shards have no address.
        if key not in gathered:
            full = tensor.full_tensor()
            gathered[key] = full.cpu() if keep else torch.empty(0)
        return gathered[key]

    return tree_map_only(is_sharded, gather, state)


@torch.no_grad()
def copy_into(tensor: Tensor, values: Tensor) -> None:
    """Copy full values into a tensor, which may be sharded."""
    if is_sharded(tensor):
        from torch.distributed.tensor import distribute_tensor

        values = values.to(tensor.device)
        values = distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)
    tensor.copy_(values)


def sharded_parameters(model: nn.Module) -> dict[Owner, Any]:
    """FSDP2's record of each sharded parameter; empty unless the model itself is sharded."""
    return fsdp_parameters(model) if _is_sharded_module(model) else {}


def tie_shards(
    base: Mapping[Owner, Any], motivated: Mapping[Owner, Any], source: Owner, target: Owner, entry: Entry
) -> Tensor:
    """Make a parameter of both models use the same shard in each process; returns the shard.

    Raises:
        SeekingError: the parameter is only a part of the other one, or one of them is not sharded.
    """
    small, large = base.get(source), motivated.get(target)
    if small is None or large is None:
        which = "base" if small is None else "motivated"
        raise SeekingError(
            f"{entry.target} is sharded in one model, but not in the {which} model; shard both in the same way"
        )
    if not entry.whole:
        raise SeekingError(
            f"{entry.target} is larger than in the base, and only pairs that differ in depth can be sharded. "
            "Use DistributedDataParallel instead (the trainer does without shard)"
        )
    if fsdp_shard_size(small) != fsdp_shard_size(large):
        raise SeekingError(
            f"{entry.target} is sharded over other processes than in the base; shard both in the same way"
        )
    shard = fsdp_shard(small)
    if fsdp_shard(large) is not shard:
        share_fsdp_shard(small, large)
    return shard
