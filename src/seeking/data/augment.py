"""Random augmentation of whole batches; every image has its own draws."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from seeking.errors import SeekingError

CROP_ASPECTS = 3 / 4, 4 / 3
"""Range of the aspect ratio of random resized crops (Szegedy et al., "Going deeper with convolutions")."""
ERASE_AREAS = 0.02, 1 / 3
"""Range of the erased share of an image (Zhong et al., "Random Erasing Data Augmentation")."""
ERASE_ASPECTS = 0.3, 1 / 0.3
"""Range of the aspect ratio of the erased rectangle, from the same paper."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random augmentation of training images.

    Attributes:
        padding: zero padding in pixels on each side before a random crop; 0 for no crop.
        flip: horizontal flips, with probability 0.5.
        scale: smallest share of the image's area that a random resized crop takes; None for no such crops.
        jitter: brightness, contrast and saturation are each multiplied by a factor in [1 - jitter, 1 + jitter].
        erase: probability that a random rectangle of an image is erased (set to the mean).

    Raises:
        SeekingError: a value is out of range, or both kinds of random crops are given.
    """

    padding: int = 0
    flip: bool = False
    scale: float | None = None
    jitter: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        if self.padding and self.scale is not None:
            raise SeekingError("crop_padding and crop_scale are two kinds of random crops; give one of them")
        if self.scale is not None and not 0 < self.scale <= 1:
            raise SeekingError(f"crop_scale is {self.scale}; it is a share of the image, above 0 and at most 1")
        for name, value in (("color_jitter", self.jitter), ("random_erasing", self.erase)):
            if not 0 <= value <= 1:
                raise SeekingError(f"{name} is {value}; it must be in [0, 1]")

    def draw(self, count: int, generator: Generator) -> dict[str, Tensor]:
        """Draw the random parameters of ``count`` images, by name; the first dimension of each tensor is ``count``."""
        draws = {"shift": torch.randint(0, 2 * self.padding + 1, (count, 2), generator=generator)}
        if self.flip:
            draws["flipped"] = torch.rand(count, generator=generator) < 0.5
        if self.scale is not None:
            draws["crop"] = _rectangles((self.scale, 1.0), CROP_ASPECTS, count, generator)
        if self.jitter:
            draws["factors"] = 1 + self.jitter * (2 * torch.rand(count, 3, generator=generator) - 1)
        if self.erase:
            erased = _rectangles(ERASE_AREAS, ERASE_ASPECTS, count, generator)
            draws["erased"] = erased * (torch.rand(count, 1, generator=generator) < self.erase)
        return draws

    def crop_and_flip(self, pixels: Tensor, draws: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """Crop and flip uint8 ``[batch, channels, ...]`` to this height and width; resized crops return float32."""
        count, channels, *_ = pixels.shape
        flipped = draws.get("flipped")
        if self.scale is not None:
            left, top, width, height = draws["crop"].unbind(1)
            signed_width = width if flipped is None else torch.where(flipped, -width, width)
            zero = torch.zeros_like(width)
            across = torch.stack([signed_width, zero, 2 * left + width - 1], dim=1)
            down = torch.stack([zero, height, 2 * top + height - 1], dim=1)
            grid = F.affine_grid(torch.stack([across, down], dim=1), [count, 1, *size], align_corners=False)
            return F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)
        if not self.padding and flipped is None:
            return center_crop(pixels, size)
        padded = F.pad(pixels, [self.padding] * 4)
        columns, rows = (torch.arange(side, device=pixels.device).expand(count, -1) for side in reversed(size))
        if flipped is not None:
            columns = torch.where(flipped[:, None], size[1] - 1 - columns, columns)
        columns, rows = columns + draws["shift"][:, 1:], rows + draws["shift"][:, :1]
        pixel_indices = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).view(count, 1, -1)
        return padded.flatten(2).gather(2, pixel_indices.expand(-1, channels, -1)).view(count, channels, *size)

    def color_jitter(self, pixels: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Change brightness, contrast and saturation of pixels in [0, 255]."""
        if not self.jitter:
            return pixels
        brightness, contrast, saturation = draws["factors"].view(-1, 3, 1, 1, 1).unbind(1)
        bright = (pixels * brightness).clamp(0, 255)
        mean = bright.mean(dim=(1, 2, 3), keepdim=True)
        contrasted = torch.lerp(mean, bright, contrast).clamp(0, 255)
        return torch.lerp(contrasted.mean(dim=1, keepdim=True), contrasted, saturation).clamp(0, 255)

    def random_erase(self, normalized: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Erase random rectangles of normalized images."""
        if not self.erase:
            return normalized
        left, top, width, height = draws["erased"].view(-1, 4, 1, 1, 1).unbind(1)
        rows, columns = ((torch.arange(n, device=normalized.device) + 0.5) / n for n in normalized.shape[2:])
        across = (columns >= left) & (columns < left + width)
        down = (rows[:, None] >= top) & (rows[:, None] < top + height)
        return normalized.masked_fill(across & down, 0.0)


def center_crop(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop images to this height and width around their center."""
    top, left = ((length - target) // 2 for length, target in zip(pixels.shape[-2:], size, strict=True))
    return pixels[..., top : top + size[0], left : left + size[1]]


def _rectangles(areas: tuple[float, float], aspects: tuple[float, float], count: int, generator: Generator) -> Tensor:
    """Random rectangles within an image: left, top, width and height as shares of its sides, ``[count, 4]``.

    The area and the logarithm of the aspect ratio are uniform. A side longer than the image is clipped.
    """
    area, aspect, *offsets = torch.rand(4, count, generator=generator).unbind(0)
    area = areas[0] + (areas[1] - areas[0]) * area
    narrowest, widest = torch.tensor(aspects).log()
    aspect = (narrowest + (widest - narrowest) * aspect).exp()
    sides = [(area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)]
    corners = [(1 - side) * offset for side, offset in zip(sides, offsets, strict=True)]
    return torch.stack(corners + sides, dim=1)
