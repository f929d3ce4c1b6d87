"""What models must be to be looked at and written to; what is not is refused by name."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from seeking.errors import SeekingError
from seeking.weights_map import is_packed, tensors


def check_models(base: object, motivated: object) -> None:
    """Make sure that these are two modules that can be looked at.

    Raises:
        SeekingError: one is not a module, is scripted, exported, quantized or not yet initialized, or holds sparse
            tensors.
    """
    for role, model in (("base", base), ("motivated model", motivated)):
        if not isinstance(model, nn.Module):
            raise SeekingError(f"the {role} is a {type(model).__name__}, not a torch.nn.Module")
        for name, module in model.named_modules():
            where = f"the {role}" if not name else f"{name} of the {role}"
            if isinstance(module, torch.jit.ScriptModule):
                raise SeekingError(f"{where} is a ScriptModule; take the module that it was made from")
            if any(isinstance(value, torch.ScriptObject) for value in vars(module).values()):
                raise SeekingError(
                    f"{where} ({type(module).__name__}) holds weights outside of parameters and buffers, as quantized "
                    "layers do; take the model before quantization"
                )
            if "eval" in vars(module):
                raise SeekingError(f"{where} has no train() and eval(), as exported; take the model before export")
        for name, tensor in tensors(model).items():
            if is_packed(tensor):
                raise SeekingError(
                    f"{name} of the {role} is a {type(tensor).__name__}, which stands for tensors of other types, as "
                    "quantized weights do; take the model before quantization"
                )
            if is_lazy(tensor):
                raise SeekingError(f"{name} of the {role} has no shape yet (lazy); run one forward first")
            if tensor.layout is not torch.strided:
                raise SeekingError(
                    f"{name} of the {role} is sparse ({tensor.layout}), which has no places to map; keep it outside "
                    "the model's buffers, as a plain attribute, or make it dense"
                )


def cure_of_meta(model: nn.Module) -> str:
    """What to do about tensors on the meta device: those that are offloaded hold something elsewhere."""
    from accelerate.utils import has_offloaded_params  # Slow to import, and seldom needed.

    if any(map(has_offloaded_params, model.modules())):
        return "its weights are offloaded: load it without offloading (a device_map), which training needs as well"
    return "make it with to_empty() and initialize it, or load its weights"


def check_writable(model: nn.Module, role: str) -> None:
    """Make sure that a model's tensors can be overwritten.

    Raises:
        SeekingError: one is on the meta device, was made in inference mode, or several of its entries are one number.
    """
    for name, tensor in tensors(model).items():
        if tensor.is_meta:
            raise SeekingError(f"{name} of the {role} is on the meta device and holds nothing; {cure_of_meta(model)}")
        if tensor.is_inference():
            raise SeekingError(
                f"{name} of the {role} was made in inference mode and cannot be changed; make the model outside of it"
            )
        if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
            raise SeekingError(
                f"{name} of the {role} is expanded: several of its entries are one number; give it memory of its own "
                "by clone()"
            )
