"""Which module of the motivated model each module of the base is."""

import math
import re
from collections.abc import Mapping, Sequence

from torch import nn

from seeking.choices import DepthPolicy, WidthPolicy
from seeking.errors import NotContainedError
from seeking.internals import Convolution, Dropout, registered_children
from seeking.weights_map import tensors

PLAIN = (bool, int, float, str, type(None))

Places = Mapping[tuple[int, int], Sequence[Sequence[int]]]
"""Of stages, by their lengths in both models: where the base's blocks lie."""


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

    A stage is a run of children that are numbered (``0``, ``1``, … or ``block1``, ``block2``, …). A block of the base
    goes to one of its own kind, in order, as near as possible to where the policy wants it: where the first block of
    a stage differs from the others, or kinds or settings alternate, such as windows of attention, so do their places.

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
    counterparts: dict[str, str] = {}

    waiting = [("", "")]
    while waiting:
        base_name, motivated_name = waiting.pop()
        counterparts[base_name] = motivated_name
        small, large = base.get_submodule(base_name), motivated.get_submodule(motivated_name)
        child_names = {name: name for name in registered_children(small)}
        large_stages = stages(large)
        for prefix, blocks in stages(small).items():
            larger = large_stages.get(prefix, {})
            if larger and len(blocks) != len(larger) and not _named_alike(blocks, larger):
                if len(blocks) > len(larger):
                    raise NotContainedError(
                        f"{base_name or 'the model'}: the base has {len(blocks)} blocks, the motivated model "
                        f"{len(larger)}; every stage of the motivated model must be at least as long"
                        + differing_types(base, motivated, base_name, motivated_name)
                    )
                names = list(larger)
                places = _places_by_kind([*blocks.values()], [*larger.values()], depth)
                child_names.update({name: names[place] for name, place in zip(blocks, places, strict=True)})
        children = []
        # named_children leaves out a module that is registered under a second name.
        for name, child in registered_children(small).items():
            if child is None:
                continue
            full = f"{base_name}.{name}" if base_name else name
            target = f"{motivated_name}.{child_names[name]}" if motivated_name else child_names[name]
            target = renames.get(full, target)
            try:
                motivated.get_submodule(target)
            except AttributeError:
                if next(child.parameters(), None) is None and next(child.buffers(), None) is None:
                    continue  # An activation, dropout or pooling: there is nothing to map.
                raise NotContainedError(
                    f"{full} ({type(child).__name__}): the motivated model has no module {target}"
                    + differing_types(base, motivated, base_name, motivated_name)
                ) from None
            children.append((full, target))
        waiting += reversed(children)
    return counterparts


def differing_types(base: nn.Module, motivated: nn.Module, base_name: str, motivated_name: str) -> str:
    """A remark on the innermost enclosing modules that are of different types; empty if there are none."""
    while base_name and motivated_name:
        kinds = [
            type(model.get_submodule(name)).__name__ for model, name in ((base, base_name), (motivated, motivated_name))
        ]
        if kinds[0] != kinds[1]:
            return f": {base_name} is a {kinds[0]} in the base and {motivated_name} a {kinds[1]} in the motivated model"
        base_name, motivated_name = base_name.rpartition(".")[0], motivated_name.rpartition(".")[0]
    kinds = [type(model).__name__ for model in (base, motivated)]
    return f": the base is a {kinds[0]} and the motivated model a {kinds[1]}" if kinds[0] != kinds[1] else ""


def stages(module: nn.Module) -> dict[str, dict[str, nn.Module]]:
    """Runs of numbered children, by what stands before the number."""
    runs: dict[str, dict[str, nn.Module]] = {}
    for name, child in registered_children(module).items():
        if child is None:
            continue
        numbered = re.fullmatch(r"(.*?)(\d+)", name)
        # Beside plain numbers, only blocks: conv1 and conv2 are layers, each with a role of its own.
        if numbered and (not numbered[1] or next(child.children(), None) is not None):
            runs.setdefault(numbered[1], {})[name] = child
    return runs


def _named_alike(blocks: Mapping[str, nn.Module], larger: Mapping[str, nn.Module]) -> bool:
    """Whether numbers are names, as in a ``ModuleDict`` of heads by layer: with gaps, or from another first number."""
    small, large = ([int(re.sub(r".*?(\d+)$", r"\1", name)) for name in names] for names in (blocks, larger))
    counted = small == [*range(large[0], large[0] + len(small))] and large == [*range(large[0], large[0] + len(large))]
    return not counted and blocks.keys() <= larger.keys()


def stage_places(base: nn.Module, motivated: nn.Module, counterparts: Mapping[str, str]) -> Places:
    """Of each stage that is longer in the motivated model, by both lengths: where the base's blocks lie in it."""
    places: dict[tuple[int, int], list[list[int]]] = {}
    for base_name, motivated_name in counterparts.items():
        large_stages = stages(motivated.get_submodule(motivated_name))
        for prefix, blocks in stages(base.get_submodule(base_name)).items():
            order = {name: place for place, name in enumerate(large_stages.get(prefix, {}))}
            targets = [counterparts.get(f"{base_name}.{name}" if base_name else name, "") for name in blocks]
            stage = [order.get(target.rpartition(".")[2], -1) for target in targets]
            if len(blocks) < len(order) and -1 not in stage and stage not in places.get((len(blocks), len(order)), []):
                places.setdefault((len(blocks), len(order)), []).append(stage)
    return places


def layer_positions(places: Places, small: int, large: int) -> list[int] | None:
    """The base's positions among parts of which there is one for each layer of a stage, or between any two.

    None if no stage fits.

    Args:
        places: of the stages, as ``stage_places`` gives them.
        small: number of parts in the base. What is before the stage, such as its input, is the base's.
        large: number of parts in the motivated model.
    """
    for before in range(small):
        stages_before = places.get((small - before, large - before), [])
        if stages_before:
            choices = [[*range(before), *(before + place for place in stage)] for stage in stages_before]
            return choices[0] if len(choices) == 1 else None
    # One between any two layers: that after a layer of the base is its own.
    between = places.get((small + 1, large + 1), [])
    return [*between[0][:-1]] if len(between) == 1 else None


def _kind(module: nn.Module) -> object:
    """What two blocks must have in common to be counterparts."""
    own = tensors(module)
    if not own:
        return type(module).__name__
    convolutions = [
        (name, child.kernel_size, child.stride)
        for name, child in module.named_modules()
        if isinstance(child, Convolution)
    ]
    # Inner modules may have the flags, such as those of attention over a window.
    switches = sorted(
        (name, key, value)
        for name, child in module.named_modules()
        for key, value in vars(child).items()
        if type(value) is bool and key != "training"
    )
    return sorted((name, tensor.ndim) for name, tensor in own.items()), convolutions, switches


def _places_by_kind(small: Sequence[nn.Module], large: Sequence[nn.Module], depth: DepthPolicy) -> Sequence[int]:
    """Increasing places for blocks among others of their kind, with the same settings where these alternate."""
    kinds = [[_kind(block) for block in blocks] for blocks in (small, large)]
    settings = _alternating([_settings(block) for block in small], [_settings(block) for block in large])
    finer = [[*zip(*each, strict=True)] for each in zip(kinds, settings, strict=True)]
    wanted = choose(len(small), len(large), depth)
    return _places(finer[0], finer[1], wanted) or _places(kinds[0], kinds[1], wanted) or wanted


Settings = Mapping[tuple[str, str], object]
"""Plain values that the modules in a block keep, by the names of module and attribute."""


def _settings(block: nn.Module) -> Settings:
    return {
        (name, key): value
        for name, child in block.named_modules()
        if not isinstance(child, Dropout)
        for key, value in vars(child).items()
        if key != "training" and "drop" not in key
        if all(type(part) in PLAIN for part in (value if type(value) is tuple else [value]))
    }


def _alternating(small: Sequence[Settings], large: Sequence[Settings]) -> list[list[list[object]]]:
    """For each block of both models, the settings that tell kinds of blocks.

    These have several values in the larger stage, some more than once, unlike the number of a layer; the base's blocks
    have no others, unlike a width.
    """
    telling = []
    for key in dict.fromkeys(key for block in large for key in block):
        own, values = ({block.get(key) for block in blocks} for blocks in (small, large))
        if 1 < len(values) < len(large) and own <= values:
            telling.append(key)
    return [[[block.get(key) for key in telling] for block in blocks] for blocks in (small, large)]


def _places(small: Sequence[object], large: Sequence[object], wanted: Sequence[int]) -> list[int]:
    """Increasing places for blocks among equal ones, nearest to those that are wanted; none if there are none."""
    # Dynamic programming. best[j]: the least total distance with the last block at place j - 1, and all the places.
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for block, want in zip(small, wanted, strict=True):
        following: list[tuple[float, list[int]]] = [(math.inf, [])]
        reached: tuple[float, list[int]] = (math.inf, [])
        for place, other in enumerate(large):
            reached = min(reached, best[place], key=lambda way: way[0]) if place < len(best) else reached
            fits = block == other and reached[0] < math.inf
            following.append((reached[0] + abs(place - want), [*reached[1], place]) if fits else (math.inf, []))
        best = following
    distance, places = min(best, key=lambda way: way[0])
    return places if distance < math.inf else []
