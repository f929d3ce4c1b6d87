"""What tells that two forward passes compute different things: numbers in them, and operations over joined parts.

Joined parts are such as the outputs of all layers: more parts give another result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seeking.matching.axes import STACKED, is_fixed, size_of
from seeking.matching.op_rules import OpCall
from seeking.matching.op_rules.choices import EXTREMA, ORDERS, RUNNING_EXTREMA
from seeking.matching.statistics import REDUCTIONS, reduced_axes
from seeking.weights_map import is_real

COMPETITIONS = {*EXTREMA, *ORDERS, *RUNNING_EXTREMA}
"""Operations that choose: whether other parts win depends on the numbers."""

THRESHOLDS = {"gt", "ge", "lt", "le", "sign", "round", "floor", "ceil", "trunc", "bucketize", "searchsorted"}
"""Operations that tell where a number lies."""

ARITHMETIC = {"add", "sub", "rsub", "mul", "div", "pow", "floor_divide", "remainder", "fmod"}
ARITHMETIC |= {f"{name}_" for name in ARITHMETIC}

COMPARISONS = {"gt", "ge", "lt", "le", "eq", "ne"}

BOUNDS = {"clamp", "clamp_min", "clamp_max", "hardtanh", "threshold", "leaky_relu", "elu", "softshrink", "hardshrink"}
BOUNDS |= {f"{name}_" for name in BOUNDS} | COMPARISONS
"""Operations with numbers that matter to some inputs alone."""

OVER_PARTS = (
    COMPETITIONS
    | (REDUCTIONS - {"native_group_norm"})
    | {"_softmax", "_log_softmax", "logsumexp", "prod", "cumsum", "cumprod"}
)


def joined_parts(name: str, call: OpCall) -> list[tuple[str, int]]:
    """The name of an operation over joined parts, and their number; none for other operations.

    Args:
        name: without namespace.
        call: as its rule sees it, before that rule changes an axis.
    """
    if name not in OVER_PARTS or isinstance(call.get("other"), Tensor):
        return []
    return [(name, size_of(axis)) for axis in reduced_axes(name, call).values() if is_fixed(axis) == STACKED]


OF_INTEGERS = " of integers"
"""Between the name of an operation and the numbers in it, if all of its tensors hold integers."""


def described(name: str, args: Sequence[Any], of_integers: bool = False) -> str:
    """The name of an operation, without namespace, with the numbers in it if it is arithmetic or has bounds."""
    if "batch_norm" in name:
        return "batch_norm"  # It has another name when it trains.
    counts = name in ARITHMETIC or name in BOUNDS
    numbers = [f"{value:.6g}" for value in args if type(value) in (int, float)] if counts else []
    return " by ".join([name + OF_INTEGERS if numbers and of_integers else name, *numbers])


@dataclass(slots=True)
class _Product:
    tensor: Tensor
    factor: int
    text: str
    compared: bool = False


class Operations:
    """The operations of a forward pass, in words.

    Where integers are multiplied by a number and the product is compared with another one, as in
    ``tokens * width == features.numel()``, what counts is the quotient of the two numbers.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._products: dict[int, _Product] = {}

    @property
    def texts(self) -> list[str]:
        """All of them so far."""
        return [*self._texts, *(product.text for product in self._products.values() if not product.compared)]

    def add(
        self, name: str, args: Sequence[Any], inputs: Sequence[Tensor], outputs: Sequence[Tensor], *, decided: bool
    ) -> None:
        """Take note of an operation.

        Args:
            name: without namespace.
            args: positional arguments.
            inputs: the tensors among the arguments.
            outputs: the tensors among the results.
            decided: whether it decides.
        """
        text = described(name, args, of_integers=not any(map(is_real, inputs)))
        number = args[1] if len(args) == 2 else None
        if OF_INTEGERS in text and type(number) is int:
            product = self._products.get(id(inputs[0]))
            if name in COMPARISONS and product:
                product.compared = True
                self._texts.append(described(name, [inputs[0], number / product.factor], of_integers=True))
                return
            if name == "mul" and number > 0 and id(inputs[0]) not in self._products:
                self._products[id(outputs[0])] = _Product(outputs[0], number, text)
                return
        for tensor in inputs:
            if product := self._products.pop(id(tensor), None):
                self._texts.append(product.text)
        if decided or is_real(outputs[0]) or OF_INTEGERS in text:
            self._texts.append(text)
