"""Run a copy of a model in one precision, and tell which of its outputs are used."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from seeking.copies import copied, random_state_preserved
from seeking.deterministic import Deterministic
from seeking.forward import Forward
from seeking.internals import PassingMode, storage_id
from seeking.verification.weights import promoted
from seeking.weights_map import Name, has_nan, is_real, named_tensors, tensors_in

Picked = Mapping[Name, int]
"""Names and places of the tensors in the base's output that are judged, in the order of all names."""

Part = TypeVar("Part")

COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


class InPrecision(PassingMode):
    """Real and complex numbers that a forward makes or casts are of this dtype at least.

    Attributes:
        watched: for storages whose use is of interest, a name.
        used: names of the storages that were used.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self.watched: dict[int | None, Name] = {}
        self.used: set[Name] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        asked = kwargs.get("dtype")
        if isinstance(asked, torch.dtype):
            least = COMPLEX[self._dtype] if asked.is_complex else self._dtype
            if (asked.is_floating_point or asked.is_complex) and asked.itemsize < least.itemsize:
                kwargs["dtype"] = least
        if self.watched:
            for tensor in tensors_in((args, kwargs)):
                if (place := self.watched.get(storage_id(tensor))) is not None:
                    self.used.add(place)
        return func(*args, **kwargs)


class Defined(PassingMode):
    """Puts a number where an operation on numbers gives none, such as 0 / 0."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self._number = number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if has_nan((args, kwargs)):
            return func(*args, **kwargs)
        output = func(*args, **kwargs)
        # A weight whose length is zero is zero, whatever its direction.
        number = 0.0 if "weight_norm" in func.name() else self._number
        for tensor in tensors_in(output):
            if tensor.layout is torch.strided and has_nan(tensor):
                tensor.masked_fill_(tensor.isnan(), number)
        return output


@contextlib.contextmanager
def in_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Real numbers that are made inside without a dtype are of this one."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


def output_of(
    model: nn.Module,
    batch: Any,
    run: Forward,
    dtype: torch.dtype,
    seed: int,
    *modes: contextlib.AbstractContextManager[Any],
    picked: Picked | None = None,
) -> tuple[Any, Picked | None]:
    """What a model puts out that is used.

    Args:
        model: a copy.
        batch: one input, as ``run`` takes it; it is not changed.
        run: may put out less than the model, such as one output of several, or a loss of one.
        dtype: least precision.
        seed: of the random numbers in the forward pass.
        modes: entered for the pass.
        picked: which of the tensors that the model puts out are judged, if that is known.

    Returns:
        The output, and which of the model's tensors it consists of; None if it is what ``run`` puts out.
    """
    precision = InPrecision(dtype)
    entered: tuple[contextlib.AbstractContextManager[Any], ...] = (Deterministic(), precision, *modes)
    model_outputs: list[Any] = []

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        if not model_outputs:
            model_outputs.append(output)
            precision.watched = {storage_id(tensor): name for name, tensor in named_tensors(output).items()}

    with in_dtype(dtype), random_state_preserved(seed), contextlib.ExitStack() as stack:
        stack.enter_context(model.register_forward_hook(watch))
        for mode in entered:
            stack.enter_context(mode)
        returned = run(model, copied(promoted(batch, dtype)))
    if not model_outputs:
        return copied(returned), None
    parts = named_tensors(model_outputs[0])
    if picked is None:
        storages = {storage_id(tensor) for tensor in tensors_in(returned)}
        used = precision.used | {name for name, tensor in parts.items() if storage_id(tensor) in storages}
        # A loss that the model puts out itself tells too little.
        if all(parts[name].numel() == 1 for name in used if is_real(parts[name])):
            used = {*parts}
        picked = {name: place for place, name in enumerate(parts) if name in used}
    chosen = those_picked(parts, picked)
    return copied(model_outputs[0] if chosen is None else chosen), picked


def those_picked(parts: Mapping[Name, Part], picked: Picked) -> list[Part] | None:
    """Of what there is for each tensor that a model puts out, that for the tensors that are picked; None if for all.

    A model may put out more than the base. Where its tensors have other names, their places count.
    """
    if len(picked) == len(parts):
        return None
    if picked.keys() <= parts.keys():
        return [parts[name] for name in picked]
    in_order = [*parts.values()]
    return [in_order[place] for place in picked.values()] if max(picked.values()) < len(in_order) else None
