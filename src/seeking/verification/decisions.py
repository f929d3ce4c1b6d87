"""Where a forward pass decides: what it decides by must agree, since the same decision on one batch proves nothing."""

import collections
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from seeking.internals import PassingMode, takes_functions
from seeking.matching.axes import Axis
from seeking.matching.deciding import Decision, decides, may_hide
from seeking.matching.operation import flat_tensors, operation_of, short_name
from seeking.verification.compare import is_constant, relative_difference
from seeking.verification.positions import Positions
from seeking.verification.recording import dense
from seeking.weights_map import is_real

TAKEN_OUT = {"numpy", "tolist", "__array__", "__dlpack__"}
"""Methods that give the numbers of a tensor to others than PyTorch."""

Decisions = list[tuple[str, list[Tensor]]]
"""Names of operations that decide, with the real numbers that they decide by, in the order of the forward pass."""


class _Operations(PassingMode):
    def __init__(self, decisions: Decisions, traced: Sequence[Decision] | None, positions: Positions | None) -> None:
        super().__init__()
        self._decisions, self._traced, self._positions = decisions, traced, positions
        self._seen: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = short_name(func)
        inputs = flat_tensors(*args, *kwargs.values())
        # In place, the numbers are gone afterwards.
        before = [tensor.clone() if name.endswith("_") else tensor for tensor in inputs]
        output = func(*args, **kwargs)
        outputs = flat_tensors(output)
        operands: list[Tensor] | None = None
        if decides(name, inputs, outputs, kwargs):
            operands = self._at_base_channels(name, dense(list(filter(is_real, before))))
        elif not takes_functions(func) and may_hide(operation_of(func), inputs, outputs):
            operands = self._hidden(name, before[0], outputs)
        if operands is not None:
            numbers = [value for value in (*args, *kwargs.values()) if type(value) in (int, float)]
            self._decisions.append((name, [*operands, *map(torch.tensor, numbers)]))
        return output

    def _at_base_channels(self, name: str, operands: list[Tensor]) -> list[Tensor] | None:
        """Copies, narrowed if that is known; None if the traced pass does not decide so."""
        if self._traced is None or self._positions is None:
            return [tensor.detach().clone() for tensor in operands]
        axes = self._traced_axes(name, operands)
        return None if axes is None else [self._narrowed(*pair) for pair in zip(operands, axes, strict=True)]

    def _hidden(self, name: str, operand: Tensor, outputs: Sequence[Tensor]) -> list[Tensor] | None:
        """A copy of what an operation hides; None if it shows more than one number at the base's channels."""
        tensors, axes = [operand, *outputs], self._traced_axes(name, [operand])
        if axes and not is_constant(operand):
            tensors = [self._narrowed(tensor, axes[0]) for tensor in tensors]
        operand, *outputs = tensors
        hides = all(map(is_constant, outputs)) and not is_constant(operand)
        return [operand.detach().clone()] if hides else None

    def _traced_axes(self, name: str, operands: list[Tensor]) -> list[list[Axis]] | None:
        """The axes of operands in the next operation like this of the traced pass; None if there is none."""
        wanted = name, [tuple(tensor.shape) for tensor in operands]
        traced = self._traced or ()
        for position in range(self._seen[name], len(traced)):
            if (traced[position].name, traced[position].operands) == wanted:
                self._seen[name] = position + 1
                return traced[position].axes
        return None

    def _narrowed(self, tensor: Tensor, axes: Sequence[Any]) -> Tensor:
        assert self._positions is not None
        narrowed = tensor.detach()
        for dim, axis in enumerate(axes):
            if (own := self._positions.left_out(axis)) is not None:
                narrowed = narrowed.index_select(dim, torch.tensor(own, device=tensor.device))
        return tensor.detach().clone() if narrowed.data_ptr() == tensor.data_ptr() else narrowed


class _TakenOut(TorchFunctionMode):
    def __init__(self, decisions: Decisions) -> None:
        super().__init__()
        self._decisions = decisions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in TAKEN_OUT and isinstance(args[0], Tensor) and is_real(args[0]):
            self._decisions.append((name, [args[0].detach().clone()]))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def deciding(
    decisions: Decisions, traced: Sequence[Decision] | None = None, positions: Positions | None = None
) -> Iterator[None]:
    """Record the decisions of a forward pass.

    Args:
        decisions: is filled.
        traced: the decisions of the same pass of the motivated model, as it was traced; None of the base.
        positions: of the base in the motivated model; the numbers are those of the base's channels.
    """
    with _TakenOut(decisions), _Operations(decisions, traced, positions):
        yield


def differing_decision(base: Decisions, motivated: Decisions, tolerance: float) -> str:
    """A sentence on the first operation that decides by other numbers in the motivated model; empty if there is none.

    Extra blocks may decide in between. Numbers of which the motivated model has more are left out.
    """
    position = 0
    for name, small in base:
        least = None
        for number, (other, large) in enumerate(motivated[position:], position):
            difference = _difference(small, large) if name == other else None
            if difference is None:
                continue
            least = difference if least is None else min(least, difference)
            if difference <= tolerance:
                position = number + 1
                break
        if least is not None and least > tolerance:
            return (
                f"{name.strip('_')} decides by numbers that differ by {least:.1e}: whether it decides alike depends on "
                "the batch"
            )
    return ""


def _difference(base: Sequence[Tensor], motivated: Sequence[Tensor]) -> float | None:
    """The greatest relative difference of operands of one shape; None if these are other operands."""
    if [tensor.ndim for tensor in base] != [tensor.ndim for tensor in motivated]:
        return None
    pairs = [(small, large) for small, large in zip(base, motivated, strict=True) if small.shape == large.shape]
    return max((relative_difference(*pair) for pair in pairs if pair[0].numel()), default=None)
