"""Images that are decoded on demand."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import get_worker_info

from seeking.errors import SeekingError

MAX_WORKERS = 64


class Encoded:
    """Encoded images. Indexing decodes them to uint8 ``[count, channels, height, width]``, like indexing a tensor.

    Args:
        rows: a Hugging Face data set whose image column is cast to ``Image(decode=False)``.
        column: name of the image column.
        name: name of the data set, for error messages.
        mode: PIL mode, ``L`` (grayscale) or ``RGB``; taken from the first image by default.
        size: side in pixels that images are resized and cropped to; their own size by default.

    Raises:
        SeekingError: the first image cannot be decoded.
    """

    def __init__(self, rows: Any, column: str, name: str, *, mode: str | None = None, size: int | None = None) -> None:
        from torchvision.transforms import v2

        self._rows, self._column, self._name = rows, column, name
        transforms: list[Any] = [v2.Resize(size, antialias=True), v2.CenterCrop(size)] if size else []
        self._prepare = v2.Compose([*transforms, v2.PILToTensor()])
        self._current_rows = torch.full((MAX_WORKERS,), -1).share_memory_()
        first = self._open(0, rows[0][column]) if len(rows) else Image.new(mode or "RGB", (1, 1))
        self.mode = mode or ("L" if first.mode in ("L", "1") else "RGB")
        self.shape = torch.Size((len(rows), *self._prepare(first.convert(self.mode)).shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Decode the images with these indices.

        Raises:
            SeekingError: an image cannot be decoded, or its size is not that of the first image.
        """
        pixels = torch.empty(len(indices), *self.shape[1:], dtype=torch.uint8)
        worker = get_worker_info()
        rows = indices.tolist()
        for position, (row, file) in enumerate(zip(rows, self._rows[rows][self._column], strict=True)):
            if worker and worker.id < MAX_WORKERS:
                self._current_rows[worker.id] = row
            tensor = self._prepare(self._open(row, file).convert(self.mode))
            if tensor.shape != pixels.shape[1:]:
                raise SeekingError(
                    f"data set {self._name}: {_describe(row, file)} is {list(tensor.shape)}, the first one "
                    f"{list(pixels.shape[1:])}; give image_size to make them the same"
                )
            pixels[position] = tensor
        return pixels

    def decoded(self) -> Tensor:
        """All images in one tensor."""
        pixels = torch.empty(self.shape, dtype=torch.uint8)

        def decode(indices: Tensor) -> None:
            pixels[indices[0] : indices[-1] + 1] = self[indices]

        with ThreadPoolExecutor() as pool:  # Decoding releases the GIL.
            for _ in pool.map(decode, torch.arange(len(self)).split(256)):
                pass
        return pixels

    def images_in_progress(self) -> str:
        """Names of the images that the workers decoded last, for error messages."""
        rows = [row for row in self._current_rows.tolist() if row >= 0]
        return ", ".join(_describe(row, self._rows[row][self._column]) for row in rows)

    def _open(self, row: int, file: Any) -> Image.Image:
        if file is None:
            raise SeekingError(f"data set {self._name}: image {row} is missing; remove the row")
        try:
            image = Image.open(Path(file["path"]) if file["bytes"] is None else io.BytesIO(file["bytes"]))
            return ImageOps.exif_transpose(image)  # This also loads the pixels.
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise SeekingError(
                f"data set {self._name}: {_describe(row, file)} cannot be decoded ({error}); repair or remove it"
            ) from error


def _describe(row: int, file: Any) -> str:
    path = file["path"] if file else None
    return f"image {row} ({path})" if path else f"image {row}"
