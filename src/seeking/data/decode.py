"""Decode images of any pixel format to 8 bits a channel."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image

from seeking.errors import SeekingError

GRAY_MODES = ("1", "L", "LA", "La", "I", "F")
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by the value of the EXIF orientation."""

Range = tuple[float, float]
"""The values that become black and white."""


def is_gray(image: Image.Image) -> bool:
    """Whether an image has one channel, beside transparency."""
    return image.mode in GRAY_MODES or is_deep(image)


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits a pixel, in one channel."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


@dataclass(frozen=True)
class PixelFormat:
    """What images are decoded to.

    Attributes:
        mode: PIL mode, ``L`` (gray) or ``RGB``.
        integers: range of gray images of 16 or 32 bits.
        floats: range of gray images of floating point.
    """

    mode: Literal["L", "RGB"]
    integers: Range = (0, 65535)
    floats: Range = (0, 1)

    def convert(self, image: Image.Image) -> Image.Image:
        """The image in this mode, upright.

        Raises:
            SeekingError: a value is NaN or outside of the range.
        """
        image.load()
        image = upright(image)
        if is_deep(image):
            low, high = self.floats if image.mode == "F" else self.integers
            pixels = np.asarray(image, dtype=np.float64)
            if not ((pixels >= low) & (pixels <= high)).all():
                raise SeekingError(
                    f"its values, {pixels.min():g} to {pixels.max():g}, are not all in {low:g} to {high:g}; "
                    "save it with 8 bits a channel"
                )
            scaled = (pixels - low) * (255 / (high - low) if high > low else 0)
            image = Image.fromarray(scaled.round().astype(np.uint8))
        return image.convert(self.mode)


def upright(image: Image.Image) -> Image.Image:
    """Turn or flip an image as its EXIF orientation says; all else in the EXIF data may be malformed."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Viewers show the image nevertheless.
        return image
    method = TRANSPOSED.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


@dataclass(frozen=True)
class Extent:
    """What some images hold.

    Attributes:
        color: whether one of them has color; then the ranges are not complete.
        integers: lowest and highest value of the integers of more than 8 bits; None if there are none.
        floats: lowest and highest floating-point value; None if there are none.
    """

    color: bool = False
    integers: Range | None = None
    floats: Range | None = None

    @classmethod
    def of(cls, image: Image.Image) -> "Extent":
        """What an image holds; pixels are decoded only if it is deep.

        Raises:
            SeekingError: a value is NaN or infinite.
        """
        if not is_deep(image):
            return cls(color=not is_gray(image))
        pixels: np.ndarray[Any, Any] = np.asarray(image)
        extremes = float(pixels.min()), float(pixels.max())
        if not np.isfinite(extremes).all():
            raise SeekingError(f"its values, {extremes[0]:g} to {extremes[1]:g}, are not all finite")
        return cls(floats=extremes) if image.mode == "F" else cls(integers=extremes)

    @classmethod
    def union(cls, extents: Iterable["Extent"]) -> "Extent":
        """What all of these images hold."""
        extents = list(extents)
        ranges = ([extent.integers for extent in extents], [extent.floats for extent in extents])
        return cls(any(extent.color for extent in extents), *map(_hull, ranges))

    def pixel_format(self, channels: int | None) -> PixelFormat:
        """The format for images that hold this: RGB if one of them has color, unless the channels are given.

        Integers are scaled by the smallest number of bits that holds all of them, at least 8; floats are taken to be
        from 0 to 1. If some are not, or if integers are negative, the lowest value becomes black and the highest white.
        With color images among them, integers are taken to have 16 bits.
        """
        mode: Literal["L", "RGB"] = "RGB" if channels == 3 or (channels is None and self.color) else "L"
        if self.color:
            return PixelFormat(mode)
        integers, floats = PixelFormat.integers, PixelFormat.floats
        if self.integers is not None:
            low, high = self.integers
            integers = (low, high) if low < 0 else (0, 2 ** max(8, int(high).bit_length()) - 1)
        if self.floats is not None and not 0 <= self.floats[0] <= self.floats[1] <= 1:
            floats = self.floats
        return PixelFormat(mode, integers, floats)


def _hull(ranges: Iterable[Range | None]) -> Range | None:
    given = [extremes for extremes in ranges if extremes is not None]
    return (min(low for low, _ in given), max(high for _, high in given)) if given else None
