"""Maps that are wrong in ways that structure makes possible: verify must catch every one."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn
from zoo import HEAD, Sizes
from zoo_images import PICTURES, Images
from zoo_tokens import WORDS, Tokens

from seeking import Index, WeightsMap, match, verify

SMALL = Sizes(width=4, hidden=6, heads=2, per_group=2, depth=1, words=11)
LARGE = Sizes(width=7, hidden=10, heads=4, per_group=4, depth=1, words=13)


def tokens(branch: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    return Tokens(SMALL, [branch], nn.RMSNorm), Tokens(LARGE, [branch], nn.RMSNorm), WORDS


def images(branch: str, flat: bool = False) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    return Images(SMALL, [branch], flat), Images(LARGE, [branch], flat), PICTURES


def rows(shape: tuple[int, ...], order: tuple[int, ...]) -> Callable[[list[int]], list[int]]:
    """Exchange the factors that a dimension is made of."""
    return lambda positions: torch.tensor(positions).view(shape).permute(order).flatten().tolist()


def turn(by: int) -> Callable[[list[int]], list[int]]:
    """Put the first positions last."""
    return lambda positions: positions[by:] + positions[:by]


def swap_in(size: int) -> Callable[[list[int]], list[int]]:
    """Exchange the halves of every run of this size."""
    half = size // 2
    return lambda positions: [
        p
        for start in range(0, len(positions), size)
        for p in positions[start + half : start + size] + positions[start : start + half]
    ]


def plus(by: int) -> Callable[[list[int]], list[int]]:
    """Take the positions further on."""
    return lambda positions: [position + by for position in positions]


QKV = ["qkv.weight", "qkv.bias"]

BREAKS = {
    "heads' rows as if q, k and v came first": (tokens("fused by head"), QKV, 0, rows((2, 3, HEAD), (1, 0, 2))),
    "rows of q, k and v as if heads came first": (tokens("fused"), QKV, 0, rows((3, 2, HEAD), (1, 0, 2))),
    "heads transposed with their channels": (tokens("fused"), ["proj.weight"], 1, rows((2, HEAD), (1, 0))),
    "gate and up exchanged": (tokens("gated"), ["gate_up.weight", "gate_up.bias"], 0, turn(6)),
    "gate of the next feature": (tokens("gated apart"), ["gate.weight", "gate.bias"], 0, plus(1)),
    "keys of the next head": (tokens("grouped"), ["k.weight"], 0, plus(HEAD)),
    "values of the next head": (tokens("grouped"), ["v.weight", "v.bias"], 0, plus(HEAD)),
    "queries with another's key": (tokens("grouped"), ["q.weight"], 0, rows((2, 2, HEAD), (1, 0, 2))),
    "rotary halves of queries exchanged": (tokens("grouped"), ["q.weight"], 0, swap_in(HEAD)),
    "q norm's channels in another order": (tokens("grouped"), ["q_norm.weight"], 0, turn(1)),
    "the bias of another head": (tokens("biased"), ["table"], 1, turn(1)),
    "relative positions off by one": (tokens("biased"), ["table"], 0, turn(1)),
    "keys and values exchanged": (tokens("biased"), ["key_value.weight", "key_value.bias"], 0, turn(8)),
    "layer scale off by one": (tokens("mlp"), ["/stages.0.0.scale"], 0, plus(1)),
    "words off by one": (tokens("mlp"), ["/words.weight", "/head.weight"], 0, plus(1)),
    "class token's channels turned": (tokens("mlp"), ["/first"], 2, turn(1)),
    "groups shifted by one": (images("groups"), ["3.weight", "3.bias"], 0, turn(2)),
    "groups and their channels transposed": (images("groups"), ["4.weight"], 1, rows((3, 2), (1, 0))),
    "channels of more groups off by one": (images("more groups"), ["2.weight"], 0, plus(2)),
    "squeezed channels off by one": (images("excited"), ["squeeze.weight"], 1, plus(1)),
    "a joined segment off by one layer": (images("dense"), ["shrink.weight"], 1, turn(3)),
    "a shuffle undone": (images("shuffled"), ["after.weight"], 1, rows((3, 6), (1, 0))),
    "halves that go by exchanged": (images("split"), ["leave.weight"], 1, turn(6)),
    "groups of a norm off by one": (images("group norm"), ["1.weight", "1.bias"], 0, plus(1)),
    "a transposed convolution's inputs off by one": (images("transposed"), ["1.weight"], 0, plus(1)),
    "neighboring channels turned": (images("channel attention"), ["shrink.weight"], 1, turn(1)),
    "flattened pixel by pixel": (images("conv", flat=True), ["/head.weight"], 1, rows((4, 16), (1, 0))),
    "statistics off by one": (images("conv"), ["1.running_mean", "1.running_var"], 0, plus(1)),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_map_of_the_wrong_structure_is_caught(name: str) -> None:
    (base, motivated, batch), names, dim, change = BREAKS[name]
    good = match(base, motivated, batch=batch)
    assert verify(base, motivated, good, batch)
    changed = {}
    for relative in names:
        full = relative[1:] if relative.startswith("/") else f"stages.0.0.branch.{relative}"
        entry = good.entries[full]
        index = list(entry.index)
        index[dim] = Index.of(change(list(index[dim])))
        assert index[dim] != entry.index[dim]
        changed[full] = dataclasses.replace(entry, index=tuple(index))
    wrong = WeightsMap({**good.entries, **changed}, good.motivated, good.buffers)
    verdict = verify(base, motivated, wrong, batch)
    assert not verdict
    assert verdict.contained, verdict.reason
