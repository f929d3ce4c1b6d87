import re

import torch
from torch import nn

from seeking import match, verify


def test_what_no_map_can_cure_is_told_from_a_wrong_map() -> None:
    """Extra layers that are no residual blocks, constants, activations: the base is not contained."""
    images = torch.randn(2, 3, 16, 16)

    def chain(extra: int, activation: type[nn.Module] = nn.ReLU, eps: float = 1e-5) -> nn.Module:
        middle = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(1 + extra)))
        return nn.Sequential(nn.Conv2d(3, 4, 3), activation(), middle, nn.BatchNorm2d(4, eps=eps), nn.Conv2d(4, 2, 1))

    for motivated, reason in (
        (chain(1), r"2\.1 \(Conv2d\), which only the motivated model has, changes its input"),
        (chain(0, nn.GELU), r"1 is ReLU in the base and GELU in the motivated model"),
        (chain(0, eps=0.1), r"3\.eps is 1e-05 in the base and 0\.1 in the motivated model"),
    ):
        base = chain(0)
        verdict = verify(base, motivated, match(base, motivated), images)
        assert not verdict
        assert not verdict.contained
        assert re.search(reason, verdict.reason), verdict.reason


def test_a_recurrent_module_with_more_layers_is_named() -> None:
    class Tagger(nn.Module):
        def __init__(self, layers: int) -> None:
            super().__init__()
            self.rnn, self.out = nn.GRU(3, 4, layers), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.out(self.rnn(x)[0])
            return y

    base, motivated, x = Tagger(1), Tagger(2), torch.randn(5, 2, 3)
    verdict = verify(base, motivated, match(base, motivated, batch=x), x)
    assert not verdict.contained
    assert "rnn has 1 recurrent layers in the base and 2 in the motivated model" in verdict.reason


def test_a_layer_that_differs_without_tensors_is_found() -> None:
    base = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    motivated = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    verdict = verify(base, motivated, match(base, motivated), torch.randn(5, 3))
    assert not verdict
    assert verdict.layer == "2"


def test_a_norm_of_another_kind_is_named_though_its_own_output_tells_nothing() -> None:
    """Channels come first, so that the weight of a custom norm does not say which of them are the base's."""

    class MeanSquare(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def scale(self, x: torch.Tensor) -> torch.Tensor:
            return x.pow(2).mean(1, keepdim=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(self.scale(x) + 1e-5) * self.weight[:, None, None]

    class Variance(MeanSquare):
        def scale(self, x: torch.Tensor) -> torch.Tensor:
            return x.var(1, keepdim=True)

    def chain(width: int, norm: type[MeanSquare]) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, width, 1), norm(width), nn.Conv2d(width, 2, 1))

    images = torch.randn(2, 3, 4, 4)
    for kinds in ((Variance, MeanSquare), (MeanSquare, Variance)):
        base, motivated = chain(4, kinds[0]), chain(6, kinds[1])
        verdict = verify(base, motivated, match(base, motivated, batch=images), images)
        assert not verdict.contained
        assert f"1 is {kinds[0].__name__} in the base and {kinds[1].__name__} in" in verdict.reason, verdict.reason
        alike = chain(6, kinds[0])
        assert verify(base, alike, match(base, alike, batch=images), images)
