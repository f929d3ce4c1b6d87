"""ResNets for small images, of 6n+2 layers (He et al., "Deep Residual Learning", 2015, section 4.2)."""

import re
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from seeking.models.family import Family, image_arguments


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut that is subsampled and zero-padded if the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.pad = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.pad:
            x = F.pad(x, (0, 0, 0, 0, 0, self.pad))
        return F.relu(out + x)


class ResNet(nn.Module):
    """Three stages of ``(depth - 2) / 6`` blocks, of ``width``, ``2 width`` and ``4 width`` channels.

    Maps images ``[batch, in_chans, height, width]`` to logits ``[batch, num_classes]``.

    Raises:
        ValueError: ``depth`` is not of the form 6n+2, or ``width`` is no number of channels.
    """

    def __init__(self, depth: int, num_classes: int = 10, in_chans: int = 3, width: int = 16) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth {depth} is not of the form 6n+2, from 8 up")
        if type(width) is not int or width < 1:
            raise ValueError(f"width is {width!r}; it must be a whole number, 1 or more")
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks = (depth - 2) // 6
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))


DEPTHS = (8, 14, 20, 32, 44, 56, 110)


def resnet(name: str, **arguments: Any) -> nn.Module:
    """A ResNet by its name, such as ``resnet8``."""
    return ResNet(int(name.removeprefix("resnet")), **arguments)


FAMILY = Family(
    pattern=re.compile(f"resnet({'|'.join(map(str, DEPTHS))})"),  # The others are timm's.
    names=tuple(f"resnet{depth}" for depth in DEPTHS),
    task="images",
    make=resnet,
    arguments=image_arguments,
)
