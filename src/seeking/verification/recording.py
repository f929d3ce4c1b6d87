"""Forward hooks that record what modules put out."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import converted, copied
from seeking.internals import is_wrapped
from seeking.weights_map import tensors_in

Hook = Callable[[nn.Module, Any, Any], Any]

Records = list[tuple[str, Any]]
"""Names of modules with their outputs, in the order in which they ran; the root's name is empty."""


def dense(values: Any) -> Any:
    """Nested tensors as padded ones, and sparse ones with their zeros."""

    def strided(tensor: Tensor) -> Tensor:
        if tensor.is_nested:
            return tensor.to_padded_tensor(0.0)
        return tensor.to_dense() if tensor.layout is not torch.strided else tensor

    return converted(values, strided)


@contextlib.contextmanager
def hooks(model: nn.Module, *by_name: Mapping[str, Hook]) -> Iterator[None]:
    """Register forward hooks on modules, by name; on exit they are removed."""
    with contextlib.ExitStack() as stack:
        for mapping in by_name:
            for name, hook in mapping.items():
                stack.enter_context(model.get_submodule(name).register_forward_hook(hook))
        yield


def recording(records: Records, names: Iterable[str], with_input: bool = False) -> dict[str, Hook]:
    """Hooks that append a copy of each output to the records; with ``with_input``, of inputs and output."""

    def hook(name: str) -> Hook:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            if any(map(is_wrapped, tensors_in((inputs, output)))):
                return  # Inside vmap, a layer sees one sample at a time.
            # The model may change it in place later.
            records.append((name, dense(copied((inputs, output) if with_input else output))))

        return record

    return {name: hook(name) for name in names}
