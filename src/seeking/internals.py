"""Every private corner of PyTorch and accelerate that this library uses, each with what breaks if a release moves it.

There is a test for each in ``tests/test_internals.py``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_map_only as tree_map_only

Owner = tuple[nn.Module, str]
"""A module and the name of one of its own parameters or buffers."""


def foreach_copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy a list of tensors in one call. Without it: a loop of ``copy_``, and slower syncs of sliced pairs."""
    torch._foreach_copy_(targets, sources)


def own_tensor(module: nn.Module, name: str) -> Tensor:
    """A module's parameter or buffer, found faster than as an attribute. Without it: ``getattr``."""
    tensor: Tensor | None = module._parameters.get(name)
    if tensor is None:
        tensor = module._buffers.get(name)
    if tensor is None:  # Such as one with a parametrization.
        tensor = getattr(module, name)
    return tensor


def storage_id(tensor: Tensor) -> int | None:
    """The identity of a tensor's storage, on the meta device as well; None for tensors without one, such as sparse.

    Without it: ``data_ptr``, which is 0 for all tensors on the meta device.
    """
    if tensor.layout is not torch.strided or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return None
    return int(tensor.untyped_storage()._cdata)


def buffer_slots(module: nn.Module) -> list[tuple[dict[str, Tensor | None], str]]:
    """Where a module and its children hold their buffers. Without it: skipped steps cannot undo replaced buffers."""
    return [(child._buffers, name) for child in module.modules() for name in child._buffers]


def reparametrizations(module: nn.Module) -> list[Any]:
    """The older ``weight_norm`` and ``spectral_norm`` of a module, which are hooks. Without it: they go unnoticed."""
    kinds = (
        torch.nn.utils.weight_norm.__globals__["WeightNorm"],
        torch.nn.utils.spectral_norm.__globals__["SpectralNorm"],
    )
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, kinds)]


def child_modules(modules: Sequence[nn.Module]) -> list[nn.Module | None]:
    """The direct children of each module. Without it: ``children()``, and a slower check for replaced modules."""
    return [child for module in modules for child in module._modules.values()]


def registered_children(module: nn.Module) -> dict[str, nn.Module | None]:
    """A module's children by name, those under a second name included, which ``named_children`` leaves out."""
    return module._modules


def operation_arguments(operation: Any) -> Any:
    """The declared arguments of an ATen operation. Without it: rules cannot tell keywords from positions."""
    return operation._schema.arguments


def skip_indices(iterator: Any, count: int) -> bool:
    """Have an iterator of a ``DataLoader`` without workers pass over batches, drawing their indices only.

    Without it: resuming in the middle of an epoch loads the batches that it passes over.

    Returns:
        Whether the iterator can.
    """
    if not hasattr(iterator, "_next_index"):
        return False
    for _ in range(count):
        iterator._next_index()
    return True


def wrap_compiled_call(model: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace what a compiled module runs by a wrapper of it. Without it: models that do not compile stop the run."""
    model._compiled_call_impl = wrap(model._compiled_call_impl)  # type: ignore[arg-type]


def undo_compilation(model: nn.Module) -> None:
    """Have a compiled module run uncompiled again."""
    model._compiled_call_impl = None


def dynamo_errors() -> type[Exception]:
    """What compilation raises where a model cannot be compiled. Without it: such models stop the run."""
    return torch._dynamo.exc.TorchDynamoException


def has_amx() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware. Without it: ``precision auto`` is float32 on CPUs."""
    return bool(torch.cpu._is_amx_tile_supported())


def fsdp_parameters(model: nn.Module) -> dict[Owner, Any]:
    """What FSDP2 holds for each parameter that it has sharded. Without it: no sharded pairs."""
    from torch.distributed.fsdp import FSDPModule

    groups = [
        group
        for module in model.modules()
        if isinstance(module, FSDPModule) and (group := module._get_fsdp_state()._fsdp_param_group)
    ]
    return {
        (sharded._module_info.module, sharded._module_info.param_name): sharded
        for group in groups
        for sharded in group.fsdp_params
    }


def fsdp_shard_size(parameter: Any) -> torch.Size:
    """Shape of this process's shard of what ``fsdp_parameters`` gives."""
    size: torch.Size = parameter.padded_sharded_param_size
    return size


def fsdp_shard(parameter: Any) -> Tensor:
    """This process's shard of what ``fsdp_parameters`` gives."""
    shard: Tensor = parameter.sharded_param._local_tensor
    return shard


def share_fsdp_shard(source: Any, target: Any) -> None:
    """Have two sharded parameters use one shard: it is known to the parameter, and to what gathers it."""
    target.sharded_param._local_tensor = fsdp_shard(source)
    target._sharded_param_data = source._sharded_param_data


def local_tensor_id(tensor: Any) -> int:
    """The identity of a ``DTensor``'s shard. Without it: tied parameters are gathered and saved twice."""
    return id(tensor._local_tensor)


def accelerator_started() -> bool:
    """Whether accelerate knows its processes and device already. Without it: another device cannot be asked for."""
    from accelerate.state import PartialState  # Slow to import, and a plain loop does not need it.

    return bool(PartialState._shared_state)


def reset_accelerator(with_processes: bool = False) -> None:
    """Have accelerate forget its precision and, if asked to, its processes and device.

    Without it: one program cannot train with one precision (or on one device) after another.
    """
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=with_processes)


def is_worker_handler(handler: Any) -> bool:
    """Whether a signal handler is the one that PyTorch's loaders install for SIGCHLD.

    Without it: a dead worker ends the run in the midst of a step, unsaved.
    """
    return getattr(handler, "__module__", "").startswith("torch.utils.data")


def raw_loader(loader: Any) -> Any:
    """The user's own loader in what ``Accelerator.prepare`` gives. Without it: batches are drawn one ahead."""
    return getattr(loader, "base_dataloader", loader)


def synchronize_generators(loader: Any) -> None:
    """Have a prepared loader draw alike in all processes, as its own iterator would first."""
    from accelerate.utils import synchronize_rng_states

    if getattr(loader, "rng_types", None) is not None:
        synchronize_rng_states(loader.rng_types, loader.synchronized_generator)


# TorchDispatchMode: without it, no derivation of maps from what models compute. tree_map: without it, no batches and
# states that are nested.

Convolution = nn.modules.conv._ConvNd
"""Every convolution; PyTorch has no public name for it. Without it: a list of six classes."""
BatchNorm = nn.modules.batchnorm._BatchNorm
"""Every batch norm. Without it: a list of four classes."""
StatisticsNorm = nn.modules.batchnorm._NormBase
"""Every norm that estimates statistics, instance norms included."""
Dropout = nn.modules.dropout._DropoutNd
"""Every dropout layer."""
