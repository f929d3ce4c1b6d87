from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seeking import match, verify
from seeking.matching.align import align, choose


@pytest.mark.parametrize("depth", ["leading", "spread"])
def test_kinds_of_blocks_that_alternate_keep_alternating(depth: str) -> None:
    def make(length: int) -> nn.Module:
        return nn.Sequential(
            *(nn.Linear(4, 4) if place % 2 else nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for place in range(length))
        )

    places = align(make(4), make(9), depth)
    chosen = [int(places[str(place)]) for place in range(4)]
    assert [place % 2 for place in chosen] == [0, 1, 0, 1]
    assert chosen == sorted(set(chosen))
    assert chosen == [0, 1, 2, 3] or (depth == "spread" and chosen[-1] > 4)


class Shifted(nn.Module):
    """A block whose settings say what it does; its place and its rate of dropout are settings, too, but no kind."""

    def __init__(self, width: int, place: int, kind: Any) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(width, width), nn.Dropout(0.1 * (place // 2))
        self.place, self.kind, self.drop_rate, self.width = place, kind, place // 2, width

    def forward(self, x: Tensor) -> Tensor:
        shift = self.kind[0] if isinstance(self.kind, tuple) else len(str(self.kind))
        return x + self.drop(self.linear(x.roll(shift, 1)))


def stage(width: int, kinds: list[Any]) -> nn.Sequential:
    blocks = [Shifted(width, place, kind) for place, kind in enumerate(kinds)]
    return nn.Sequential(nn.Linear(3, width), nn.Sequential(*blocks), nn.Linear(width, 2))


@settings(max_examples=25)
@given(
    pattern=st.lists(st.sampled_from([None, 4, 1.5, "global", (2, 0)]), min_size=1, max_size=3),
    repeats=st.tuples(st.integers(1, 2), st.integers(2, 3)),
    depth=st.sampled_from(["leading", "spread"]),
)
def test_settings_that_alternate_keep_alternating(pattern: list[Any], repeats: tuple[int, int], depth: Any) -> None:
    small, large = (pattern * times for times in repeats)
    base, motivated = stage(4, small), stage(6, [*large, pattern[0]])
    places = [int(align(base, motivated, depth)[f"1.{place}"].rpartition(".")[2]) for place in range(len(small))]
    assert [[*large, pattern[0]][place] for place in places] == small
    if len(set(map(str, pattern))) == 1:
        assert places == [*choose(len(small), len(large) + 1, depth)]


@pytest.mark.filterwarnings("ignore::seeking.MatchWarning")
def test_layers_of_alternating_settings_are_exact_wherever_they_are_put() -> None:
    base, motivated, x = stage(4, [4, "global"]), stage(6, [4, "global", 4, "global", 4]), torch.randn(2, 7, 3)
    verdict = verify(base, motivated, match(base, motivated, batch=x, depth="spread"), x)
    assert verdict, verdict.reason
