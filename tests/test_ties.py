"""Weights that a model ties stay tied in a pair, and buffers and parameters that are replaced are carried or told."""

import pytest
import torch
from torch import Tensor, nn
from watched_models import Layer, mlp, pair_of

import seeking
from seeking.errors import SeekingError
from seeking.weights_map import identity


@pytest.mark.parametrize("how", ["data", "assign"])
def test_ties_are_of_storages(how: str) -> None:
    class Tied(nn.Module):
        def __init__(self, width: int, tied: bool = True) -> None:
            super().__init__()
            self.emb, self.head = nn.Embedding(5, width), nn.Linear(width, 5, bias=False)
            if tied and how == "data":
                self.head.weight.data = self.emb.weight.data
            elif tied:
                self.head.weight = self.emb.weight
                self.load_state_dict(self.state_dict(), assign=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.emb(x))

    with pytest.raises(SeekingError, match="weight"):
        seeking.Pair(Tied(4, tied=False), Tied(6))
    base, motivated = Tied(4), Tied(6)
    pair = seeking.Pair(base, motivated)
    with pair.motivated():
        motivated.emb.weight.data.add_(1)
    pair.separate()
    for model in (base, motivated):
        assert identity(model.emb.weight) == identity(model.head.weight)


@pytest.mark.parametrize("how", ["object", "data"])
@pytest.mark.parametrize("width", [4, 6])
def test_what_extra_blocks_share_with_the_bases_stays_shared(how: str, width: int) -> None:
    def chain(width: int, depth: int) -> nn.Module:
        blocks = [nn.Linear(width, width) for _ in range(depth)]
        for block in blocks[1:]:
            if how == "object":
                block.weight = blocks[0].weight
            else:
                block.weight.data = blocks[0].weight.data
        return nn.Sequential(nn.Linear(3, width), nn.Sequential(*blocks), nn.Linear(width, 2))

    base, motivated = chain(4, 2), chain(width, 4)
    pair = seeking.Pair(base, motivated, batch=torch.randn(2, 3))
    with pair.motivated(), torch.no_grad():
        motivated[1][3].weight.add_(1)
    assert torch.equal(base[1][0].weight, motivated[1][3].weight[:4, :4])
    pair.separate()
    for model in (base, motivated):
        assert len({identity(block.weight) for block in model[1]}) == 1
    assert identity(base[1][0].weight) != identity(motivated[1][0].weight)


def test_a_buffer_that_a_forward_replaces_is_carried_back() -> None:
    pair = seeking.Pair(*pair_of(lambda width: nn.Sequential(Layer(3, width, False), Layer(width, 2, False))))
    for _ in range(2):
        with pair.motivated() as model:
            model(torch.randn(2, 3))
    assert pair.base[0].runs == pair.motivated_model[0].runs == 2


def test_a_buffer_of_another_shape_than_the_map_is_refused() -> None:
    base, motivated = pair_of(mlp)
    for model in (base, motivated):
        model[0].register_buffer("scale", torch.zeros(1))
    pair = seeking.Pair(base, motivated)
    base[0].scale = torch.zeros(4)
    with pytest.raises(SeekingError, match=r"0\.scale.*\[4\].*\[1\].*run one forward"), pair.motivated():
        pass


def test_a_parameter_that_was_replaced_by_one_of_another_shape_is_told() -> None:
    """As the embedding of a vocabulary that grows after the models were paired."""
    pair = seeking.Pair(*pair_of(mlp))
    pair.base[-1].weight = nn.Parameter(torch.zeros(7, 4))
    with pytest.raises(
        SeekingError, match=r"weight: its shape in the base is \[7, 4\].*replaced.*pair the models anew"
    ):
        pair.motivated().__enter__()
