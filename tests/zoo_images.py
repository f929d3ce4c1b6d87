"""Small convolutional networks of every kind of layer that a weights map must understand, in any width and depth."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import Sizes, sizes

PICTURES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class ConvBranch(nn.Sequential):
    """Convolution, batch norm, ReLU, convolution."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(
            nn.Conv2d(sizes.width, sizes.hidden, 3, padding=1),
            nn.BatchNorm2d(sizes.hidden),
            nn.ReLU(),
            nn.Conv2d(sizes.hidden, sizes.width, 1),
        )


class GroupedConv(nn.Sequential):
    """A bottleneck of three groups (ResNeXt)."""

    def __init__(self, sizes: Sizes) -> None:
        inner = 3 * sizes.per_group
        super().__init__(
            nn.Conv2d(sizes.width, inner, 1),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=3),
            nn.Conv2d(inner, sizes.width, 1),
        )


class MoreGroups(nn.Sequential):
    """A bottleneck of more groups of the same width (RegNet)."""

    def __init__(self, sizes: Sizes) -> None:
        inner = 2 * sizes.hidden
        super().__init__(
            nn.Conv2d(sizes.width, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=sizes.hidden, bias=False),
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, sizes.width, 1),
        )


class Excited(nn.Module):
    """Depthwise convolution with squeeze and excitation."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.expand = nn.Conv2d(sizes.width, sizes.hidden, 1)
        self.depthwise = nn.Conv2d(sizes.hidden, sizes.hidden, 3, padding=1, groups=sizes.hidden)
        self.squeeze = nn.Conv2d(sizes.hidden, sizes.per_group, 1)
        self.excite = nn.Conv2d(sizes.per_group, sizes.hidden, 1)
        self.shrink = nn.Conv2d(sizes.hidden, sizes.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(F.silu(self.expand(x)))
        gate = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.shrink(x * gate)


class Dense(nn.Module):
    """Features joined to those before them (DenseNet)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        width, growth = sizes.width, sizes.per_group
        for number in range(sizes.depth + 1):
            self.layers[f"layer{number + 1}"] = nn.Sequential(
                nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, growth, 3, padding=1)
            )
            width += growth
        self.shrink = nn.Conv2d(width, sizes.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values():
            x = torch.cat([x, layer(x)], dim=1)
        return self.shrink(x)


class Shuffled(nn.Module):
    """Two grouped convolutions with the channels shuffled between them (ShuffleNet)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        inner = 9 * sizes.per_group
        self.before = nn.Conv2d(sizes.width, inner, 1)
        self.first = nn.Conv2d(inner, inner, 3, padding=1, groups=3)
        self.second = nn.Conv2d(inner, inner, 3, padding=1, groups=3)
        self.after = nn.Conv2d(inner, sizes.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.before(x)).relu()
        b, c, h, w = x.shape
        x = x.view(b, 3, c // 3, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.after(self.second(x))


class Split(nn.Module):
    """Half of the channels go by (ShuffleNet v2, CSP), the other half through a convolution."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.enter = nn.Conv2d(sizes.width, 2 * sizes.hidden, 1)
        self.conv = nn.Conv2d(sizes.hidden, sizes.hidden, 3, padding=1)
        self.leave = nn.Conv2d(2 * sizes.hidden, sizes.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.enter(x).chunk(2, dim=1)
        return self.leave(torch.cat([self.conv(second), first], dim=1))


class GroupNormed(nn.Sequential):
    """Normalized in two groups, which may be of one channel each."""

    def __init__(self, sizes: Sizes) -> None:
        inner = 2 * sizes.hidden
        super().__init__(
            nn.Conv2d(sizes.width, inner, 1), nn.GroupNorm(2, inner), nn.ReLU(), nn.Conv2d(inner, sizes.width, 1)
        )


class Transposed(nn.Sequential):
    """Down and up again."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(
            nn.Conv2d(sizes.width, sizes.hidden, 2, stride=2),
            nn.ConvTranspose2d(sizes.hidden, sizes.width, 2, stride=2),
        )


class ChannelAttention(nn.Module):
    """A convolution over neighboring channels (ECA); its channels grow at the end."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.expand = nn.Conv2d(sizes.width, sizes.hidden, 1)
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.shrink = nn.Conv2d(sizes.hidden, sizes.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(x)
        gate = self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return self.shrink(x * gate.view(len(x), -1, 1, 1))


IMAGE_BRANCHES: dict[str, Callable[[Sizes], nn.Module]] = {
    "conv": ConvBranch,
    "groups": GroupedConv,
    "more groups": MoreGroups,
    "excited": Excited,
    "dense": Dense,
    "shuffled": Shuffled,
    "split": Split,
    "group norm": GroupNormed,
    "transposed": Transposed,
    "channel attention": ChannelAttention,
}


class Added(nn.Module):
    """A branch beside the identity, or, in a stage's first block, beside a convolution."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + (x if self.shortcut is None else self.shortcut(x))


class Images(nn.Module):
    """A convolutional network: stem, stages whose first block has a shortcut of its own, head."""

    def __init__(self, sizes: Sizes, branches: Sequence[str], flat: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, sizes.width, 3, stride=2, padding=1), nn.BatchNorm2d(sizes.width))
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Added(
                        IMAGE_BRANCHES[branch](sizes),
                        nn.Conv2d(sizes.width, sizes.width, 1) if number == 0 else None,
                    )
                    for number in range(sizes.depth)
                )
            )
            for branch in branches
        )
        self.flat = flat
        self.head = nn.Linear(sizes.width * (16 if flat else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.flatten(1) if self.flat else x.mean((2, 3)))


@st.composite
def image_models(draw: st.DrawFn) -> tuple[nn.Module, nn.Module, Tensor]:
    """Two convolutional networks, one in the other, and a batch for them."""
    small, large = draw(sizes())
    rest: dict[str, Any] = {
        "branches": draw(st.lists(st.sampled_from(sorted(IMAGE_BRANCHES)), min_size=1, max_size=3)),
        "flat": draw(st.booleans()),
    }
    return Images(small, **rest), Images(large, **rest), PICTURES
