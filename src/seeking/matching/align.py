"""Which module of the motivated model each module of the base is."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from seeking.errors import NotContainedError

DepthPolicy = Literal["leading", "spread"]
WidthPolicy = Literal["leading", "even"]


def choose(small: int, large: int, policy: DepthPolicy | WidthPolicy) -> range | list[int]:
    """``small`` of ``large`` positions: the leading ones, or at even distance with the first among them."""
    return range(small) if policy == "leading" else [position * large // small for position in range(small)]


def align(
    base: nn.Module,
    motivated: nn.Module,
    depth: DepthPolicy = "leading",
    renames: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Match modules by name, and the blocks of stages that differ in length by the depth policy.

    A stage is a module whose children are numbered.

    Args:
        base: the smaller model.
        motivated: the larger model.
        depth: which blocks of a longer stage are the base's.
        renames: the motivated model's name for base modules where it is another, by full name.

    Returns:
        The motivated model's module name for each of the base's, the root's being ``""``.

    Raises:
        NotContainedError: a stage of the base is longer than the motivated model's, or a module is missing there.
    """
    renames = renames or {}
    found: dict[str, str] = {}

    def visit(base_name: str, motivated_name: str) -> None:
        found[base_name] = motivated_name
        small = _children(base, base_name)
        large = _children(motivated, motivated_name)
        partner = {name: name for name in small}
        if small and large and all(map(str.isdigit, [*small, *large])) and len(small) != len(large):
            if len(small) > len(large):
                raise NotContainedError(
                    f"{base_name}: the base has {len(small)} blocks, the motivated model {len(large)}; "
                    "every stage of the motivated model must be at least as long"
                )
            names = list(large)
            partner = {name: names[i] for name, i in zip(small, choose(len(small), len(large), depth), strict=True)}
        for name, child in small.items():
            full = f"{base_name}.{name}" if base_name else name
            there = f"{motivated_name}.{partner[name]}" if motivated_name else partner[name]
            there = renames.get(full, there)
            try:
                motivated.get_submodule(there)
            except AttributeError:
                if next(child.parameters(), None) is None and next(child.buffers(), None) is None:
                    continue  # Nothing to map below it: activations, dropout, pooling.
                raise NotContainedError(
                    f"{full} ({type(child).__name__}): the motivated model has no module {there}"
                    + differing_types(base, motivated, base_name, motivated_name)
                ) from None
            visit(full, there)

    visit("", "")
    return found


def differing_types(base: nn.Module, motivated: nn.Module, base_name: str, motivated_name: str) -> str:
    """A remark on the innermost enclosing modules that are of different types, or nothing."""
    while base_name and motivated_name:
        small, large = base.get_submodule(base_name), motivated.get_submodule(motivated_name)
        if type(small) is not type(large):
            return (
                f": {base_name} is a {type(small).__name__} in the base and {motivated_name} "
                f"a {type(large).__name__} in the motivated model"
            )
        base_name, motivated_name = base_name.rpartition(".")[0], motivated_name.rpartition(".")[0]
    return ""


def _children(model: nn.Module, name: str) -> dict[str, nn.Module]:
    return dict(model.get_submodule(name).named_children())
