"""Whether a copy of a model computes with the model itself: then what it puts out says nothing of the copy."""

from typing import Any

from torch import nn

from seeking.errors import SeekingError
from seeking.internals import PassingMode, storage_id
from seeking.weights_map import tensors, tensors_in


class UsesOf(PassingMode):
    """Finds the parameters and buffers of a model that operations take.

    Attributes:
        used: their names.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._names = {storage_id(tensor): name for name, tensor in tensors(model).items()}
        self._names.pop(None, None)
        self.used: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        names = [self._names.get(storage_id(tensor), "") for tensor in tensors_in((args, kwargs))]
        self.used += filter(None, names)
        return func(*args, **kwargs)


def check_unused(model: nn.Module, uses: UsesOf) -> None:
    """Make sure that a copy of a model has run on tensors of its own.

    Args:
        model: of which the copy is.
        uses: of the model, in a pass of the copy.

    Raises:
        SeekingError: it has run on the model's.
    """
    if uses.used:
        raise SeekingError(
            f"{type(model).__name__}: its forward pass reaches {uses.used[0]} by another way than the attributes of "
            "the model, such as a variable of a module of Python, so that a copy of it computes with the weights of "
            "the original; models are only run as copies, so let it take this part from its attributes"
        )
