import copy
import warnings

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from seeking import MatchWarning, match, verify
from seeking.matching import Factor, rule
from seeking.matching.module_rules import RULES


class Unrunnable(VisionTransformer):
    """A vision transformer that looks at its activations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() < 1e9 else x[:1]) if float(self.head.weight.sum()) < 1e9 else x


def test_built_in_rules_tell_of_a_model_that_cannot_be_traced() -> None:
    sizes = {"img_size": 16, "patch_size": 8, "num_classes": 3}
    base = Unrunnable(embed_dim=8, num_heads=2, depth=2, **sizes)
    motivated = Unrunnable(embed_dim=16, num_heads=4, depth=3, **sizes)
    images = torch.randn(1, 3, 16, 16)
    with pytest.warns(MatchWarning, match="unknown"):
        weights_map = match(copy.deepcopy(base).to("meta"), copy.deepcopy(motivated).to("meta"), batch=images)
    assert weights_map.entries["blocks.0.attn.qkv.weight"].origin == "rule: fused attention"
    assert verify(base, motivated, weights_map, images)


@torch.library.custom_op("seeking_tests::halves", mutates_args=())
def halves(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The product of two halves: a custom kernel, which no trace looks into."""
    first, second = (x @ weight.T).chunk(2, dim=-1)
    return first * second


@halves.register_fake
def _(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0] // 2)


class Halves(nn.Module):
    """Made up: its weight holds two halves, which only its kernel takes apart."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features * 2, 4))
        self.out = nn.Linear(features, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(halves(x, self.weight))


def test_a_custom_rule_tells_what_no_trace_shows() -> None:
    base, motivated = Halves(3), Halves(5)
    batch = torch.randn(2, 4)
    with pytest.warns(MatchWarning, match="treated as elementwise: seeking_tests::halves; seeking.verify tells"):
        assert not verify(base, motivated, match(base, motivated, batch=batch), batch)

    @rule
    def two_halves(module: nn.Module) -> dict[str, list[list[Factor]]] | None:
        if not isinstance(module, Halves):
            return None
        rows = [Factor("halves", 2, grows=False), Factor("features", module.out.in_features)]
        return {"weight": [rows, [Factor("inputs", 4)]]}

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            weights_map = match(base, motivated, batch=batch)
    finally:
        RULES.remove(two_halves)
    assert weights_map.entries["weight"].origin == "rule: two halves"
    assert str(weights_map.entries["weight"].index[0]) == "0:3, 5:8"
    assert verify(base, motivated, weights_map, batch)
