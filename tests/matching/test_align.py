import pytest
from torch import nn

from seeking.matching.align import align


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
