"""Time to decode JPEG and PNG files as the workers do, by torchcodec, torchvision and PIL.

The images are noise on smooth colors. Times are relative to PIL alone, which resizes images before they are tensors.

    python benchmarks/decode.py
"""

import argparse
import io
import warnings
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from ratios import seconds, summary
from torch import Tensor
from torchvision.io import decode_image
from torchvision.transforms import v2

from seeking.data.decode import PixelFormat
from seeking.data.pixels import decoders, pixels

RGB = PixelFormat("RGB")
SHAPES = [(32, 32, None, 200), (375, 500, None, 20), (375, 500, 224, 20), (1200, 1600, 224, 3)]
"""Height and width of the images, the side that they are resized to, and how many there are."""


def encoded(height: int, width: int, kind: str, seed: int) -> bytes:
    """An image as a file of this kind."""
    random = np.random.default_rng(seed)
    smooth = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    colors = np.asarray(Image.fromarray(smooth).resize((width, height))).astype(int)
    noisy = (colors + random.integers(-8, 9, colors.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, kind)
    return file.getvalue()


def opened(file: bytes) -> Image.Image:
    """The image in a file."""
    return Image.open(io.BytesIO(file))


def ways(size: int | None) -> dict[str, Callable[[bytes], Tensor]]:
    """Ways from a file to pixels."""
    resize = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size)] if size else [v2.Identity()])
    by_pil = v2.Compose([resize, v2.PILToTensor()])
    by_name: dict[str, Callable[[bytes], Tensor]] = {
        "PIL": lambda file: by_pil(RGB.convert(opened(file))),
        "PIL, tensors resized": lambda file: resize(v2.functional.pil_to_tensor(RGB.convert(opened(file)))),
        "torchvision": lambda file: resize(decode_image(torch.frombuffer(bytearray(file), dtype=torch.uint8))),
    }
    if decoders():
        by_name["torchcodec, as the workers do"] = lambda file: resize(pixels(opened(file), RGB))
    return by_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torchvision's decoders are deprecated.
    for height, width, size, count in SHAPES:
        for kind in ("JPEG", "PNG"):
            files = [encoded(height, width, kind, seed) for seed in range(count)]

            def timed(way: Callable[[bytes], Tensor], files: list[bytes] = files) -> float:
                return seconds(lambda: [way(file) for file in files])

            by_name = ways(size)
            times = [{name: timed(way) for name, way in by_name.items()} for _ in range(rounds)]
            print(f"{kind} of {width}×{height}, {f'resized to {size}' if size else 'as they are'}")
            for name in by_name:
                print(f"  {name:30} {summary([time[name] / time['PIL'] for time in times])}")


if __name__ == "__main__":
    main()
