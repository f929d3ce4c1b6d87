"""What the user knows better than the derivation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from seeking.errors import NotContainedError, SeekingError, unknown
from seeking.weights_map import Index, tensors


@dataclass(frozen=True)
class Override:
    """The user's choice for one base tensor or, with ``target`` alone, for one base module.

    Attributes:
        target: the motivated model's name for it.
        index: for each dimension positions (integers, or text such as ``"0:192, 384:576"``), or None for
            whatever the derivation would choose.
        space: let the index hold for every tensor that the same channels run through, not for this one alone.
    """

    target: str | None = None
    index: Sequence[str | Iterable[int] | None] | None = None
    space: bool = False


def check_names(overrides: Mapping[str, Override], base: nn.Module) -> None:
    """Make sure that each override is of something in the base.

    Raises:
        SeekingError: there is no such tensor or module, a module is given an index, or something else than overrides is
            given.
    """
    if not isinstance(overrides, Mapping):
        raise SeekingError(f"overrides is a {type(overrides).__name__}, not a mapping of names to seeking.Override")
    names = tensors(base).keys()
    modules = {name for name, _ in base.named_modules(remove_duplicate=False)}
    for name, override in overrides.items():
        if name not in names and name not in modules:
            raise unknown("base tensor or module in overrides", name, [*names, *modules])
        if not isinstance(override, Override):
            raise SeekingError(f"{name}: its override is {override!r}; give seeking.Override(target=..., index=...)")
        if override.index is not None and name not in names:
            raise SeekingError(f"{name}: an override of a module takes a target, not an index; name its tensors")


def read_positions(name: str, tensor: Tensor, index: Sequence[str | Iterable[int] | None]) -> list[Index | None]:
    """Read the index of an override of this base tensor: one for each dimension, None where it leaves it open.

    Raises:
        SeekingError: the index is malformed, or of other lengths than the tensor's.
    """
    if isinstance(index, str):
        raise SeekingError(f"{name}: the index of an override is a list with an item for each dimension, not {index!r}")
    indices: list[Index | None] = []
    for item in index:
        if item is None or isinstance(item, str):
            indices.append(None if item is None else Index.parse(item))
            continue
        if not isinstance(item, Iterable):
            raise SeekingError(f"{name}: an override names positions by a list or text such as '4:8', not {item!r}")
        numbers = list(item)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise SeekingError(f"{name}: an override names positions by numbers from 0 up, not {numbers!r}")
        indices.append(Index.of(numbers))
    if len(indices) != tensor.ndim:
        raise NotContainedError(f"{name}: {tensor.ndim} dimensions in the base, {len(indices)} in its override")
    for dim, positions in enumerate(indices):
        if positions is not None and len(positions) != tensor.shape[dim]:
            raise SeekingError(
                f"{name}, dimension {dim}: the override names {len(positions)} positions, "
                f"the base tensor has {tensor.shape[dim]}"
            )
    return indices
