"""Augmentation of whole batches, image by image."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from seeking.errors import SeekingError

ASPECTS = 3 / 4, 4 / 3
"""Width over height of random resized crops, as is usual since Szegedy et al., "Going deeper with convolutions"."""
ERASED = 0.02, 1 / 3
"""Share of the image that is erased, and below its aspects: Zhong et al., "Random Erasing Data Augmentation"."""
ERASED_ASPECTS = 0.3, 1 / 0.3


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to training images.

    Attributes:
        padding: black pixels added on each side before a random crop back to size; 0 for none.
        flip: whether every other image, at random, is mirrored.
        scale: least share of the image that random resized crops take; None for none.
        jitter: brightness, contrast and saturation are each multiplied by a number of [1 - jitter, 1 + jitter].
        erase: share of the images of which a random rectangle is erased (set to the mean).

    Raises:
        SeekingError: a number is out of range, or both kinds of crops are asked for.
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
        """What chance says for each of so many images, by name; the first dimension counts the images."""
        draws = {"shift": torch.randint(0, 2 * self.padding + 1, (count, 2), generator=generator)}
        if self.flip:
            draws["mirrored"] = torch.rand(count, generator=generator) < 0.5
        if self.scale is not None:
            draws["crop"] = _rectangles((self.scale, 1.0), ASPECTS, count, generator)
        if self.jitter:
            draws["colours"] = 1 + self.jitter * (2 * torch.rand(count, 3, generator=generator) - 1)
        if self.erase:
            erased = _rectangles(ERASED, ERASED_ASPECTS, count, generator)
            draws["erased"] = erased * (torch.rand(count, 1, generator=generator) < self.erase)
        return draws

    def frame(self, pixels: Tensor, draws: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """Crop and mirror uint8 ``[batch, channels, ...]`` to this height and width; resized crops give float32."""
        count, channels, *_ = pixels.shape
        mirrored = draws.get("mirrored")
        if self.scale is not None:
            left, top, width, height = draws["crop"].unbind(1)
            turned = width if mirrored is None else torch.where(mirrored, -width, width)
            zero = torch.zeros_like(width)
            across = torch.stack([turned, zero, 2 * left + width - 1], dim=1)
            down = torch.stack([zero, height, 2 * top + height - 1], dim=1)
            grid = F.affine_grid(torch.stack([across, down], dim=1), [count, 1, *size], align_corners=False)
            return F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)
        if not self.padding and mirrored is None:
            return centre(pixels, size)
        padded = F.pad(pixels, [self.padding] * 4)
        columns, rows = (torch.arange(side, device=pixels.device).expand(count, -1) for side in reversed(size))
        if mirrored is not None:
            columns = torch.where(mirrored[:, None], size[1] - 1 - columns, columns)
        columns, rows = columns + draws["shift"][:, 1:], rows + draws["shift"][:, :1]
        taken = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).view(count, 1, -1)
        return padded.flatten(2).gather(2, taken.expand(-1, channels, -1)).view(count, channels, *size)

    def colour(self, pixels: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Change brightness, contrast and saturation of values from 0 to 255."""
        if not self.jitter:
            return pixels
        brightness, contrast, saturation = draws["colours"].view(-1, 3, 1, 1, 1).unbind(1)
        bright = (pixels * brightness).clamp(0, 255)
        level = bright.mean(dim=(1, 2, 3), keepdim=True)
        contrasted = torch.lerp(level, bright, contrast).clamp(0, 255)
        return torch.lerp(contrasted.mean(dim=1, keepdim=True), contrasted, saturation).clamp(0, 255)

    def random_erase(self, normalised: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Erase rectangles of normalised images."""
        if not self.erase:
            return normalised
        left, top, width, height = draws["erased"].view(-1, 4, 1, 1, 1).unbind(1)
        rows, columns = ((torch.arange(n, device=normalised.device) + 0.5) / n for n in normalised.shape[2:])
        across = (columns >= left) & (columns < left + width)
        down = (rows[:, None] >= top) & (rows[:, None] < top + height)
        return normalised.masked_fill(across & down, 0.0)


def centre(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of images."""
    top, left = ((there - asked) // 2 for there, asked in zip(pixels.shape[-2:], size, strict=True))
    return pixels[..., top : top + size[0], left : left + size[1]]


def _rectangles(areas: tuple[float, float], aspects: tuple[float, float], count: int, generator: Generator) -> Tensor:
    """Left, top, width and height, in shares of the image, of random rectangles within it: ``[count, 4]``.

    Areas are uniform, and so are the logarithms of width over height; a side longer than the image's is cut.
    """
    area, aspect, *at = torch.rand(4, count, generator=generator).unbind(0)
    area = areas[0] + (areas[1] - areas[0]) * area
    narrowest, widest = torch.tensor(aspects).log()
    aspect = (narrowest + (widest - narrowest) * aspect).exp()
    sides = [(area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)]
    return torch.stack([(1 - side) * place for side, place in zip(sides, at, strict=True)] + sides, dim=1)
