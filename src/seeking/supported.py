"""What models must be to be looked at and written to; what is not is refused by name."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from seeking.errors import SeekingError
from seeking.weights_map import Entry, WeightsMap, has_nan, is_packed, tensors


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


def check_map(weights_map: object) -> None:
    """Make sure that this is a weights map.

    Raises:
        SeekingError: it is something else, such as the path of one.
    """
    if not isinstance(weights_map, WeightsMap):
        raise SeekingError(
            f"the weights map is a {type(weights_map).__name__}; seeking.match(base, motivated) makes one, and "
            "seeking.WeightsMap.load(path) reads one"
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


def check_numbers(model: nn.Module, role: str) -> None:
    """Make sure that a model holds numbers that another one can start from.

    Raises:
        SeekingError: a tensor is on the meta device, or a parameter holds NaN.
    """
    for name, tensor in tensors(model).items():
        if tensor.is_meta:
            raise SeekingError(f"the {role} is on the meta device and holds nothing; {cure_of_meta(model)}")
        if isinstance(tensor, nn.Parameter) and has_nan(tensor):
            raise SeekingError(f"{name} of the {role} holds NaN, from which nothing can start; give it other weights")


def check_apart(base: nn.Module, motivated: nn.Module) -> None:
    """Make sure that no parameter is in both models as one object: each has gradients of its own, and once they are
    separated weights of its own.

    Raises:
        SeekingError: one is.
    """
    names = {parameter: name for name, parameter in base.named_parameters()}
    for name, parameter in motivated.named_parameters():
        if parameter in names:
            raise SeekingError(
                f"{names[parameter]} of the base and {name} of the motivated model are one parameter; give each model "
                "its own, such as by copy.deepcopy: the pair lets them share their memory"
            )


def check_registered(model: nn.Module, role: str, names: Iterable[str]) -> None:
    """Make sure that these are parameters or buffers still: what is copied into computed tensors would be lost.

    Raises:
        SeekingError: one is not.
    """
    known = tensors(model)
    for name in names:
        if name not in known:
            raise SeekingError(
                f"{name} is no parameter or buffer of the {role} any more, as after pruning or weight normalization; "
                "change both models first, then match and pair them"
            )


def check_fits(source: Tensor, target: Tensor, entry: Entry) -> None:
    """Make sure that two tensors are those of an entry of a map, on one device and of one dtype.

    Raises:
        SeekingError: they are not.
    """
    for role, tensor, shape in (("base", source, entry.shape), ("motivated model", target, entry.target_shape)):
        if tuple(tensor.shape) != shape:
            cure = "run one forward of both models first, then match and pair them"
            if isinstance(tensor, nn.Parameter):
                cure = "it was replaced after the map was made; match and pair the models anew"
            raise SeekingError(
                f"{entry.target}: its shape in the {role} is {list(tensor.shape)} where the map has "
                f"{list(shape)}; {cure}"
            )
    if (source.device, source.dtype) != (target.device, target.dtype):
        raise SeekingError(
            f"{entry.target}: the base's is {source.dtype} on {source.device}, the motivated model's "
            f"{target.dtype} on {target.device}; move both models to one device and dtype"
        )
