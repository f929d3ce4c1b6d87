"""Private names of PyTorch, accelerate and datasets, a memory layout of NumPy, a file of scikit-learn.

Each says what breaks without it, and has a test in ``tests/test_internals.py``.
"""

import contextlib
import copy
import ctypes
import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_map_only as tree_map_only
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

Owner = tuple[nn.Module, str]
"""A module and the name of one of its own parameters or buffers."""


def foreach_copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy a list of tensors in one call. Without it: no pairs; a loop of ``copy_`` would do."""
    torch._foreach_copy_(targets, sources)


def foreach_norm(tensors: list[Tensor]) -> list[Tensor]:
    """The norm of each tensor in one call. Without it: no steps; ``get_total_norm`` would do."""
    return list(torch._foreach_norm(tensors))


def let_schedule_begin(optimizer: Optimizer) -> None:
    """Let a schedule go on before its optimizer has stepped. Without it: PyTorch warns of it, where it is meant."""
    optimizer._opt_called = True  # type: ignore[attr-defined]


def own_tensor(module: nn.Module, name: str) -> Tensor:
    """A module's parameter or buffer, faster than by attribute access. Without it: ``getattr``."""
    tensor: Tensor | None = module._parameters.get(name)
    if tensor is None:
        tensor = module._buffers.get(name)
    if tensor is None:  # Such as one with a parametrization.
        tensor = getattr(module, name)
    return tensor


def versions(tensors: Sequence[Tensor]) -> list[int]:
    """How often autograd has seen each tensor change in place. Without it: lost changes of a base go unnoticed."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


def sparse_parts(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and values of a sparse tensor as they are, perhaps several of one entry. Without it: their sums, whose
    rounding may be another one after a run was resumed.
    """
    return tensor.detach()._indices(), tensor.detach()._values()


def storage_id(tensor: Tensor) -> int | None:
    """The identity of a tensor's storage, on the meta device as well; None for tensors without one, such as sparse.

    Without it: ``data_ptr``, which is 0 for all tensors on the meta device.
    """
    if (
        tensor.is_nested
        or tensor.layout is not torch.strided
        or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
    ):
        return None
    if is_wrapped(tensor):
        return None
    return int(tensor.untyped_storage()._cdata)


def is_wrapped(tensor: Tensor) -> bool:
    """Whether a tensor is one of a transform of ``torch.func``, such as ``vmap``, and has no storage of its own.

    Without it: models whose forward uses these transforms are refused.
    """
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def buffer_slots(module: nn.Module) -> list[tuple[dict[str, Tensor | None], str]]:
    """The buffer dictionaries of a module and its children. Without it: skipped steps cannot undo replaced buffers."""
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
    """A module's children by name, including duplicates, which ``named_children`` omits."""
    return module._modules


class PassingMode(TorchDispatchMode):
    """A mode that gets operations that take functions, such as ``flex_attention``, too, and may let them pass.

    Without it: models with such operations are refused.
    """

    supports_higher_order_operators = True


@contextlib.contextmanager
def outside_modes() -> Iterator[None]:
    """Inside, no mode sees what PyTorch does. Without it: copies made within a traced forward pass are traced."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


def takes_functions(operation: Any) -> bool:
    """Whether an operation is ``flex_attention``, ``cond`` or the like. Without it: see ``PassingMode``."""
    return isinstance(operation, torch._ops.HigherOrderOperator)


def operation_arguments(operation: Any) -> Any:
    """The declared arguments of an ATen operation. Without it: rules cannot tell keywords from positions."""
    return operation._schema.arguments


def skip_indices(iterator: Any, count: int) -> bool:
    """Skip batches of a ``DataLoader`` iterator without workers by drawing only their indices.

    Without it: resuming in the middle of an epoch loads the skipped batches.

    Returns:
        Whether the iterator can.
    """
    if not hasattr(iterator, "_next_index"):
        return False
    for _ in range(count):
        iterator._next_index()
    return True


def ended_by_item(stop: StopIteration) -> bool:
    """Whether an iterator of a ``DataLoader`` ended because an item of the data set raised ``StopIteration``.

    Without it: the pass over the data ends early, and nobody notices.
    """
    if stop.args and "Original Traceback" in str(stop):  # From a worker.
        return True
    trace, fetches = stop.__traceback__, torch.utils.data._utils.fetch.__name__
    while trace:
        if trace.tb_frame.f_globals.get("__name__") == fetches:
            return True
        trace = trace.tb_next
    return False


def wrap_compiled_call(model: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Wrap the compiled call of a module. Without it: models that do not compile stop the run."""
    model._compiled_call_impl = wrap(model._compiled_call_impl)  # type: ignore[arg-type]


def undo_compilation(model: nn.Module) -> None:
    """Make a compiled module run uncompiled again."""
    model._compiled_call_impl = None


def dynamo_errors() -> type[Exception]:
    """The exceptions of failed compilations. Without it: such models stop the run."""
    return torch._dynamo.exc.TorchDynamoException


def has_amx() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware. Without it: ``precision auto`` is float32 on CPUs."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def fsdp_parameters(model: nn.Module) -> dict[Owner, Any]:
    """FSDP2's record of each sharded parameter. Without it: no sharded pairs."""
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
    """Shape of this process's shard of a parameter from ``fsdp_parameters``."""
    size: torch.Size = parameter.padded_sharded_param_size
    return size


def fsdp_shard(parameter: Any) -> Tensor:
    """This process's shard of a parameter from ``fsdp_parameters``."""
    shard: Tensor = parameter.sharded_param._local_tensor
    return shard


def share_fsdp_shard(source: Any, target: Any) -> None:
    """Make two sharded parameters use the same shard, in the parameter and in FSDP2's record."""
    target.sharded_param._local_tensor = fsdp_shard(source)
    target._sharded_param_data = source._sharded_param_data


def local_tensor_id(tensor: Any) -> int:
    """The identity of a ``DTensor``'s shard. Without it: tied parameters are gathered and saved twice."""
    return id(tensor._local_tensor)


def leave_out_of_ddp(module: nn.Module, prefix: str) -> None:
    """Let DDP leave out the parameters and buffers whose names begin so. Without it: it waits for their gradients."""
    names = [name for name, _ in (*module.named_parameters(), *module.named_buffers()) if name.startswith(prefix)]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)


def accelerator_started() -> bool:
    """Whether accelerate is initialized. Without it: the device cannot be changed."""
    from accelerate.state import PartialState  # Slow to import, and a plain loop does not need it.

    return bool(PartialState._shared_state)


def reset_accelerator(with_processes: bool = False) -> None:
    """Reset accelerate's precision and, optionally, its processes and device.

    Without it: a program cannot train with different precisions or devices in turn.
    """
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=with_processes)


def is_worker_handler(handler: Any) -> bool:
    """Whether a signal handler is the SIGCHLD handler of PyTorch's loaders.

    Without it: a dead worker ends the run in the middle of a step, unsaved.
    """
    return getattr(handler, "__module__", "").startswith("torch.utils.data")


def iterates_by_torch(loader: Any) -> bool:
    """Whether a loader is a ``DataLoader`` that does not change how it is iterated over.

    Without it: a copy of every loader is iterated over, and resuming loads the skipped batches.
    """
    kind = type(loader)
    return issubclass(kind, DataLoader) and all(
        getattr(kind, name) is getattr(DataLoader, name) for name in ("__iter__", "_get_iterator")
    )


def copied_loader(loader: Any, **changes: Any) -> Any:
    """A copy of a ``DataLoader``, without its workers, with changes to attributes that PyTorch lets nobody set.

    Without it: loaders are made anew, and lose what a class of the user's own has added.
    """
    twin = copy.copy(loader)
    vars(twin).update(changes, _iterator=None)
    return twin


def own_iterators(loader: Any) -> list[Any]:
    """The iterators that a loader, or one in it, keeps as attributes; without those of persistent workers."""
    values = {name: value for name, value in getattr(loader, "__dict__", {}).items() if name != "_iterator"}
    nested = [value for name, value in values.items() if name == "loader" or isinstance(value, DataLoader)]
    kept = [value for value in values.values() if isinstance(value, Iterator) and not isinstance(value, io.IOBase)]
    return kept + [iterator for value in nested if value is not loader for iterator in own_iterators(value)]


def mt19937_words(bit_generator: np.random.MT19937) -> bytes:
    """The 624 words of NumPy's usual bit generator and the position among them, as they lie in memory.

    Less than a fiftieth of the time that ``bit_generator.state`` takes, before every batch. Without it: that time.
    """
    return ctypes.string_at(bit_generator.ctypes.state_address, 625 * 4)


def is_split_by_node(dataset: Any) -> bool:
    """Whether ``datasets.distributed.split_dataset_by_node`` made this iterable data set. Without it: split twice."""
    return getattr(dataset, "_distributed", None) is not None


def has_shuffle_buffer(dataset: Any) -> bool:
    """Whether an iterable data set of ``datasets`` has a shuffle buffer, whose samples its ``state_dict`` lacks.

    Without it: a run on a shuffled stream that is resumed loses the samples in the buffer.
    """
    pending = [getattr(dataset, "_ex_iterable", None)]
    for part in pending:
        if hasattr(part, "buffer_size"):
            return True
        inner = [getattr(part, "ex_iterable", None), *(getattr(part, "ex_iterables", None) or ())]
        pending += [each for each in inner if each is not None]
    return False


def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images and labels of scikit-learn's digits, from its file.

    Without it: ``load_digits``, whose import takes longer than a small run.
    """
    package = importlib.util.find_spec("sklearn")
    file = Path(package.origin if package and package.origin else "").parent / "datasets" / "data" / "digits.csv.gz"
    if not file.exists():
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images, bunch.target
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)


class _NoModules(contextlib.nullcontext[None]):
    """Stands in for what follows the modules of a pass."""

    parents = ("Global",)


def flop_counter() -> FlopCounterMode:
    """A counter of the FLOPs of a whole pass. Without it: ``torch.autograd.grad`` inside the pass raises.

    It does so under the hooks by which the counter of PyTorch tells modules apart.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter


def forget_position(dataset: Any) -> None:
    """Let an iterable data set of ``datasets`` start anew, after ``load_state_dict`` had its effect on one pass.

    Without it: a later pass of the same epoch, such as of another run in this process, starts where that one did.
    """
    if getattr(dataset, "_starting_state_dict", None) is not None:
        dataset.load_state_dict(None)


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


def refuses_arguments(error: Exception) -> bool:
    """Whether a module was called with other arguments than its forward takes, and no line of it has run.

    Without it: an error about such a model lacks a hint.
    """
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    return isinstance(error, TypeError) and place is not None and place.tb_frame.f_code.co_name == "_call_impl"


def copied_from(tensor: Tensor) -> list[GradientEdge]:
    """What a model has put out, if this is the copy of it that mixed precision or a distributed model returns.

    Without it: a loss that is computed inside such a model seems not to depend on its logits.
    """
    made_by = tensor.grad_fn
    if made_by is None or made_by.name() not in ("ToCopyBackward0", "_DDPSinkBackward"):
        return []
    return [GradientEdge(node, number) for node, number in made_by.next_functions if node is not None]
