"""The pixels of an image as a tensor, by the fastest decoder that gives the right ones."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from PIL import ExifTags, Image
from torch import Tensor

from seeking.data.decode import TRANSPOSED, PixelFormat

QUICK_MODES = {"RGB": ("RGB", "L"), "L": ("L",)}
"""The modes of images that torchcodec converts to a mode as PIL does."""
PNG_LAYOUTS = {"L": b"\x08\x00", "RGB": b"\x08\x02"}
"""Depth and color type in the header of a PNG file, where no palette or further bits are involved."""

PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""Where a PNG file may say that it is to be turned."""


def pixels(image: Image.Image, pixel_format: PixelFormat) -> Tensor:
    """The pixels of an image that has just been opened, uint8 ``[channels, height, width]``, upright.

    JPEG and PNG files of 8 bits are decoded by torchcodec, if it is installed, all others by PIL. Both give the same.

    Raises:
        SeekingError: a value is NaN or outside of the range of the format.
        Exception: the file cannot be decoded.
    """
    quick = _by_torchcodec(image, pixel_format.mode)
    if quick is not None:
        return quick
    from torchvision.transforms.v2.functional import pil_to_tensor

    tensor: Tensor = pil_to_tensor(pixel_format.convert(image))
    return tensor


def _by_torchcodec(image: Image.Image, mode: str) -> Tensor | None:
    decode = decoders().get(image.format or "")
    file: Any = getattr(image, "fp", None)
    if decode is None or file is None or image.mode not in QUICK_MODES[mode]:
        return None
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    if not (_is_upright(image) if image.format == "JPEG" else _is_plain(image, content)):
        return None
    try:
        pixels: Tensor = decode(content, mode="RGB" if mode == "RGB" else "GRAY")
    except Exception:  # PIL may decode it nevertheless, or tell why it cannot.
        return None
    return pixels


def _is_plain(image: Image.Image, content: bytes) -> bool:
    """Whether a PNG file holds one image of 8 bits without a palette, a transparent color or EXIF data."""
    more = "transparency" in image.info or getattr(image, "is_animated", False)
    # PIL would have to decode the image to find the data, which may come last.
    return content[24:26] == PNG_LAYOUTS[image.mode] and not more and not any(word in content for word in PNG_EXIF)


def _is_upright(image: Image.Image) -> bool:
    """Whether the EXIF data of a JPEG file, which come before its pixels, do not turn it."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation) not in TRANSPOSED
    except Exception:  # Malformed; see upright.
        return False


@functools.cache
def decoders() -> Mapping[str, Callable[..., Tensor]]:
    """The decoders of torchcodec by PIL's name of the file format; none if it is not installed or cannot be loaded."""
    try:
        from torchcodec.decoders import decode_jpeg, decode_png
    except (ImportError, RuntimeError, OSError):  # It is built for one version of PyTorch.
        return {}
    available: dict[str, Any] = {"JPEG": decode_jpeg, "PNG": decode_png}
    return available
