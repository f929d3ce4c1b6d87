"""Folders of small images."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from seeking.data import DataConfig, ImageData, Images, load
from seeking.errors import RunWarning


def random_images(count: int = 20, channels: int = 3, size: int = 8) -> Images:
    return Images(torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8), torch.arange(count) % 3)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "data"


def picture(path: Path, number: int = 0) -> None:
    """An image that can be told from others by its first pixel."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    pixels[0, 0] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def pictures(root: Path, *paths: str) -> str:
    for number, path in enumerate(paths):
        picture(root / path, number)
    return str(root)


def told(root: str, **options: Any) -> tuple[ImageData, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RunWarning)
        data = load(DataConfig(data=root, **options))
    return data, [str(warning.message) for warning in caught if issubclass(warning.category, RunWarning)]
